"""LoRA adapters in peft's format: loaded onto their base model and merged into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastchat.chat import ChatRenderer
from fastchat.conversation import Conversation
from fastchat.errors import CheckpointError
from fastchat.model.base_adapter import BaseModelAdapter
from fastchat.model.model_folder import find_file, local_folder, read_json


class PeftModelAdapter(BaseModelAdapter):
    """A folder with adapter_config.json; everything but the weights is its base model's.

    Args:
        adapter_of: finds the adapter of the base model.
    """

    def __init__(self, adapter_of: Callable[[str], BaseModelAdapter]) -> None:
        self._adapter_of = adapter_of

    def match(self, model_path: str) -> bool:
        """Whether the folder holds an adapter."""
        return find_file(model_path, "adapter_config.json") is not None

    def load_model(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> Any:
        """The base model with the adapter merged in, and the base's tokenizer.

        Raises:
            CheckpointError: the base model or the adapter cannot be loaded, or do not fit.
        """
        from peft import PeftModel

        base_path = base_of(model_path)
        base, tokenizer = self._adapter_of(base_path).load_model(base_path, from_pretrained_kwargs)
        try:
            model = PeftModel.from_pretrained(base, model_path)
        except Exception as error:  # whatever a damaged adapter makes the library raise
            raise CheckpointError(
                f"The adapter {model_path} does not fit its base model {base_path}: {error}"
            ) from error
        return model.merge_and_unload(safe_merge=True), tokenizer

    def get_default_conv_template(self, model_path: str) -> Conversation:
        """The base model's."""
        base_path = base_of(model_path)
        return self._adapter_of(base_path).get_default_conv_template(base_path)

    def get_chat_renderer(self, model_path: str, tokenizer: Any) -> ChatRenderer:
        """The base model's."""
        base_path = base_of(model_path)
        return self._adapter_of(base_path).get_chat_renderer(base_path, tokenizer)


def base_of(adapter: str) -> str:
    """The folder of the model that an adapter was trained on.

    Raises:
        CheckpointError: the adapter does not say, or there is no such folder.
    """
    base = (read_json(adapter, "adapter_config.json") or {}).get("base_model_name_or_path")
    if not base:
        raise CheckpointError(
            f"adapter_config.json in {adapter} names no base_model_name_or_path.",
            hint="Add the path of the model that the adapter was trained on.",
        )
    return str(local_folder(base))
