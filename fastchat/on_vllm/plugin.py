"""What vLLM calls in each of its processes: makes Yuan2 known to it.

The entry point `vllm.general_plugins` of this distribution. Imports no vllm until it is called.
"""

from __future__ import annotations

import logging

from fastchat.on_vllm.versions import installed_version, unfit_reason

ARCHITECTURE = "YuanForCausalLM"


def register() -> None:
    """Registers Yuan2's config and tokenizer with transformers, and its network with vLLM.

    With an untested vLLM it only says so: other models are served by it as ever.
    """
    reason = unfit_reason(installed_version())
    if reason is not None:
        logging.getLogger(__name__).warning("Yuan2 is not registered: %s", reason)
        return
    from vllm import ModelRegistry

    import fastchat.model  # noqa: F401  (registers config and tokenizer)

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, "fastchat.on_vllm.network:YuanForCausalLM")
