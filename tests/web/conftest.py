"""The servers of `tests/serve`, and the page in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastchat.serve.processes import Service, Services, free_ports
from tests.serve.conftest import _shared_stack, make_stack, stack

__all__ = ["_shared_stack", "make_stack", "stack"]

READY_S = 90.0


@contextmanager
def pages(folder: Path) -> Generator[Callable[..., str], None, None]:
    """Starts pages for a controller; gives their URLs. Their log is in `folder / "logs"`."""
    if find_spec("gradio") is None:
        pytest.skip("gradio is not installed")
    with Services(folder / "output") as services:

        def serve(controller_url: str, *flags: str, many: bool = True) -> str:
            (port,) = free_ports(1)
            url = f"http://127.0.0.1:{port}"
            history = folder / "history.sqlite"
            services.start(
                Service(
                    f"page-{port}",
                    "fastchat.serve.gradio_web_server" + ("_multi" if many else ""),
                    [
                        *("--host", "127.0.0.1", "--port", str(port)),
                        *("--controller-url", controller_url, "--history-file", str(history)),
                        *flags,
                    ],
                    url + "/",
                    {"LOGDIR": str(folder / "logs")},
                )
            )
            services.wait_until_ready(READY_S)
            return url

        yield serve


@pytest.fixture
def serve_page(tmp_path) -> Generator[Callable[..., str], None, None]:
    """Starts a page for a controller; returns its URL."""
    with pages(tmp_path) as serve:
        yield serve
