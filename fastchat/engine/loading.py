"""Loads a model folder into an engine, with its tokenizer and chat template.

Knows nothing of HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fastchat.chat import ChatRenderer, TemplateChatRenderer, YuanChatRenderer
from fastchat.conversation import Conversation, get_conv_template
from fastchat.engine.answer import Vocabulary
from fastchat.engine.base import Engine
from fastchat.engine.network.adapters import beyond_lora
from fastchat.engine.plain import PlainEngine
from fastchat.engine.served import ServedModel, TextCodec
from fastchat.engine.settings import EngineSettings
from fastchat.engine.structured import Grammars
from fastchat.engine.yuan_loading import load_engine
from fastchat.errors import SettingsError
from fastchat.model.model_adapter import (
    generation_defaults,
    get_chat_renderer,
    get_conversation_template,
    load_model,
    resolve_device,
)
from fastchat.model.model_folder import local_folder, model_type_of, read_json
from fastchat.model.peft_adapter import base_of
from fastchat.model.text_stream import GenericTextStream, TextStream, YuanTextStream
from fastchat.model.tokenization_yuan import YuanTokenizer
from fastchat.model.tokenizer_loading import load_tokenizer
from fastchat.utils import get_context_length


def load_served_model(
    model_path: str,
    *,
    device: str = "auto",
    dtype: str | None = None,
    num_gpus: int = 1,
    max_gpu_memory: str | None = None,
    revision: str = "main",
    load_8bit: bool = False,
    conv_template: str | None = None,
    seed: int | None = None,
    engine: EngineSettings | None = None,
) -> ServedModel:
    """Loads a model so that a worker or a terminal can ask it.

    Args:
        model_path: folder or hub id.
        device, dtype, num_gpus, max_gpu_memory, revision, load_8bit: see `load_model`.
        conv_template: a template's name, or a .json file that holds one; the model's own
            if None.
        seed: for requests that name none.
        engine: settings of the engine for Yuan2.

    Raises:
        CheckpointError: nothing readable there, or another network.
        SettingsError: a device that is not there, or an unknown template.
    """
    chosen = None if conv_template is None else read_conv_template(conv_template)
    folder = str(local_folder(model_path, revision=revision))
    settings = engine or EngineSettings()
    if load_8bit:
        settings = replace(settings, quantization="int8")
    base, adapter = _base_and_adapter(folder)
    loaded: Engine
    if settings.batched and num_gpus == 1 and model_type_of(base) == "yuan":
        tokenizer = load_tokenizer(base)
        end_ids = end_token_ids(tokenizer, read_json(base, "generation_config.json") or {})
        loaded = load_engine(
            base,
            tokenizer,
            partial(vocabulary_of, tokenizer, end_ids),
            device=torch.device(resolve_device(device)),
            dtype=dtype,
            settings=settings,
            adapter=adapter,
        )
    else:
        model, tokenizer = load_model(
            folder,
            device=device,
            num_gpus=num_gpus,
            max_gpu_memory=max_gpu_memory,
            dtype=dtype,
            load_8bit=load_8bit,
        )
        end_ids = end_token_ids(tokenizer, vars(getattr(model, "generation_config", None) or ()))
        loaded = PlainEngine(
            model,
            vocabulary_of(tokenizer, end_ids, model.config.vocab_size),
            context_length=get_context_length(model.config),
            grammars=Grammars(tokenizer, model.config.vocab_size, end_ids),
        )
    defaults = generation_defaults(folder)
    return ServedModel(
        path=model_path,
        engine=loaded,
        codec=codec_of(tokenizer),
        chat=renderer_of(tokenizer, folder, chosen),
        conversation=chosen or own_template(folder, end_ids),
        stop_token_ids=end_ids,
        defaults=defaults if seed is None else defaults | {"seed": seed},
    )


def _base_and_adapter(folder: str) -> tuple[str, str | None]:
    """A model's folder, and that of a plain LoRA adapter on it if `folder` is one."""
    config = read_json(folder, "adapter_config.json")
    if config is None or beyond_lora(config):
        return folder, None
    return base_of(folder), folder


def read_conv_template(name: str) -> Conversation:
    """A registered template, or one from a .json file with a Conversation's fields.

    Raises:
        SettingsError: no such template, or a file that does not hold one.
    """
    if not name.endswith(".json"):
        return get_conv_template(name)
    known = {field.name for field in fields(Conversation)}
    try:
        values = json.loads(Path(name).read_text(encoding="utf-8"))
        template = Conversation(**values)
        return replace(template, roles=(template.roles[0], template.roles[1]))
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise SettingsError(
            f"--conv-template {name} does not hold a conversation template: {error}",
            hint=f"It is a JSON object with fields among {', '.join(sorted(known))}.",
        ) from error


def own_template(folder: str, end_ids: Sequence[int]) -> Conversation:
    """A model's conversation template with its own end tokens, not those of another vocabulary."""
    template = get_conversation_template(folder)
    return replace(template, stop_token_ids=list(end_ids)) if template.stop_token_ids else template


def end_token_ids(tokenizer: Any, generation: Mapping[str, Any]) -> tuple[int, ...]:
    """A model's own end tokens: the tokenizer's, and those of its generation config."""
    ids = generation.get("eos_token_id")
    listed = ids if isinstance(ids, list) else [ids]
    found = [tokenizer.eos_token_id, *listed]
    return tuple(dict.fromkeys(token for token in found if token is not None))


def special_token_ids(tokenizer: Any) -> dict[str, int]:
    """The special tokens of a tokenizer by their text."""
    return dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))


class LibraryCodec:
    """A transformers tokenizer as a `TextCodec`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode_ids(self, text: str, *, parse_special: bool = True) -> list[int]:
        """See `TextCodec.encode_ids`."""
        encoded = self._tokenizer(text, split_special_tokens=not parse_special)
        return list(encoded["input_ids"])

    def decode_ids(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """See `TextCodec.decode_ids`."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text


def codec_of(tokenizer: Any) -> TextCodec:
    """How a tokenizer turns text into ids and back."""
    return tokenizer if isinstance(tokenizer, YuanTokenizer) else LibraryCodec(tokenizer)


def vocabulary_of(tokenizer: Any, end_ids: Sequence[int], size: int) -> Vocabulary:
    """What engines know of a model's text.

    Args:
        tokenizer: of the model.
        end_ids: the model's own end tokens.
        size: of the model's logits.
    """
    codec = codec_of(tokenizer)
    return Vocabulary(
        size=size,
        text_stream=partial(_text_stream, tokenizer),
        token_text=lambda token: codec.decode_ids([token]),
        end_ids=frozenset(end_ids),
        special_ids=special_token_ids(tokenizer),
    )


def _text_stream(tokenizer: Any) -> TextStream:
    if isinstance(tokenizer, YuanTokenizer):
        return YuanTextStream(tokenizer, skip_special_tokens=True)
    return GenericTextStream(tokenizer, skip_special_tokens=True)


def renderer_of(tokenizer: Any, folder: str, chosen: Conversation | None) -> ChatRenderer:
    """What turns messages into prompts: the chosen template, or the model's own if None."""
    if chosen is None:
        return get_chat_renderer(tokenizer, folder)
    if chosen.name == "yuan2" and isinstance(tokenizer, YuanTokenizer):
        return YuanChatRenderer(tokenizer)
    return TemplateChatRenderer(chosen, tokenizer)
