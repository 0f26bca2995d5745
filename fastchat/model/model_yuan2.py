"""How Yuan2 checkpoints are recognised, loaded, prompted and sampled by default."""

from __future__ import annotations

from typing import Any

from fastchat.chat import ChatRenderer, YuanChatRenderer
from fastchat.conversation import Conversation, get_conv_template
from fastchat.model.base_adapter import BaseModelAdapter
from fastchat.model.model_folder import model_type_of

GENERATION_DEFAULTS: dict[str, Any] = {}
"""Sampling values for Yuan2 where neither the request, a flag nor generation_config.json has one.

Empty: the published files say nothing about sampling, so the API's own defaults hold.
"""


class Yuan2Adapter(BaseModelAdapter):
    """Yuan2: the native network and tokenizer, no remote code."""

    generation_defaults = GENERATION_DEFAULTS

    def match(self, model_path: str) -> bool:
        """By config.json's model type; by name only where there is no config."""
        model_type = model_type_of(model_path)
        return "yuan" in model_path.lower() if model_type is None else model_type == "yuan"

    def get_default_conv_template(self, model_path: str) -> Conversation:
        """The template `yuan2`."""
        return get_conv_template("yuan2")

    def get_chat_renderer(self, model_path: str, tokenizer: Any) -> ChatRenderer:
        """Yuan2's published chat format."""
        return YuanChatRenderer(tokenizer)
