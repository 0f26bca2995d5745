"""The adapter that serves any causal language model transformers can load.

An adapter knows how one family of checkpoints is recognised, loaded and prompted. This
one is what the others derive from, and the last to be asked.
"""

from __future__ import annotations

from typing import Any

from fastchat.chat import ChatRenderer, JinjaChatRenderer, TemplateChatRenderer
from fastchat.conversation import Conversation, get_conv_template
from fastchat.errors import CheckpointError, FastChatError
from fastchat.model.model_folder import model_type_of


class BaseModelAdapter:
    """Recognises every model; loads it through transformers' Auto classes.

    Attributes:
        generation_defaults: sampling values for this family, by the worker's field names,
            weaker than generation_config.json.
    """

    generation_defaults: dict[str, Any] = {}

    def match(self, model_path: str) -> bool:
        """Whether this adapter is for a model folder."""
        return True

    def load_model(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> Any:
        """(model, tokenizer), on the CPU unless a device map says otherwise.

        Raises:
            CheckpointError: nothing readable there, or not a causal language model.
        """
        from transformers import AutoConfig, AutoModelForCausalLM

        from fastchat.model.tokenizer_loading import load_tokenizer
        from fastchat.model.weight_files import refuse_missing_files

        refuse_missing_files(model_path)
        _refuse_unknown_type(model_path)
        try:
            # Another network is refused before anything else is read; no remote code, and
            # no question about it on a terminal.
            AutoConfig.from_pretrained(model_path, trust_remote_code=False)
            tokenizer = load_tokenizer(model_path)
            model = AutoModelForCausalLM.from_pretrained(
                model_path, trust_remote_code=False, **from_pretrained_kwargs
            )
        except FastChatError:
            raise
        except Exception as error:  # whatever a damaged folder makes the library raise
            raise CheckpointError(
                f"No causal language model could be loaded from {model_path}: {error}",
                hint="Give a folder with config.json, its weight files and its tokenizer.",
            ) from error
        return model, tokenizer

    def get_default_conv_template(self, model_path: str) -> Conversation:
        """The template that upstream's clients are told; `one_shot` for unknown models."""
        return get_conv_template("one_shot")

    def get_chat_renderer(self, model_path: str, tokenizer: Any) -> ChatRenderer:
        """The model's own chat template, or the conversation template where it has none."""
        if getattr(tokenizer, "chat_template", None):
            return JinjaChatRenderer(tokenizer)
        return TemplateChatRenderer(self.get_default_conv_template(model_path), tokenizer)


def _refuse_unknown_type(folder: str) -> None:
    from transformers import CONFIG_MAPPING

    model_type = model_type_of(folder)
    if model_type is not None and model_type not in CONFIG_MAPPING:
        raise CheckpointError(
            f"config.json in {folder} names the model type {model_type!r}, which neither this"
            " project nor the installed transformers knows.",
            hint="Code that ships with a checkpoint is never run.",
        )
