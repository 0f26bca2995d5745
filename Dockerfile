# One image for every process: the container's arguments say which one runs. Not built in CI.
#
#   docker build -t fastchat-yuan2 .                                 for a CPU
#   docker build -t fastchat-yuan2 --build-arg TORCH_BACKEND=cu128 . for NVIDIA GPUs
#
# TORCH_BACKEND is one of uv's names for torch's builds. docs/serve.md shows the three processes.

FROM python:3.11-slim AS build
ARG TORCH_BACKEND=cpu
RUN pip install --no-cache-dir uv && python -m venv --without-pip /opt/fastchat
WORKDIR /src
COPY scripts/constraints.txt scripts/constraints.txt
# torch in a layer of its own: it is large, and the source below changes more often.
RUN uv pip install --no-cache --python /opt/fastchat/bin/python \
    --torch-backend "$TORCH_BACKEND" -c scripts/constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY fastchat fastchat
RUN uv pip install --no-cache --compile-bytecode --python /opt/fastchat/bin/python \
    -c scripts/constraints.txt ".[model_worker]"

FROM python:3.11-slim
RUN useradd --create-home --uid 1000 fastchat
COPY --from=build /opt/fastchat /opt/fastchat
ENV PATH=/opt/fastchat/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LOGDIR="" \
    HEALTH_URL=http://127.0.0.1:8000/health
USER fastchat
WORKDIR /home/fastchat
EXPOSE 8000 21001 21002
# Of the API server; another process names its own address: -e HEALTH_URL=http://127.0.0.1:21002/health
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD python -c "import os, urllib.request; urllib.request.urlopen(os.environ['HEALTH_URL'], timeout=4)"
ENTRYPOINT ["python", "-m"]
CMD ["fastchat.serve.openai_api_server", "--host", "0.0.0.0", "--controller-address", "http://controller:21001"]
