"""Yuan2 inside vLLM, and vLLM as an engine for the worker.

vLLM loads `plugin`; `fastchat.serve.vllm_worker` loads the rest. Nothing else imports this room,
and only here is vllm imported.
"""
