"""Starts vLLM on a model folder, with the text side of the model as other workers have it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from vllm import AsyncEngineArgs, AsyncLLMEngine
from vllm.exceptions import VLLMClientError
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser

from fastchat.engine.loading import (
    codec_of,
    end_token_ids,
    own_template,
    read_conv_template,
    renderer_of,
    vocabulary_of,
)
from fastchat.engine.sampling.limits import MAX_LOGPROBS
from fastchat.engine.served import ServedModel
from fastchat.engine.yuan_loading import config_of
from fastchat.errors import SettingsError
from fastchat.model.model_adapter import generation_defaults
from fastchat.model.model_folder import local_folder, model_type_of, read_json
from fastchat.model.published_weights import refuse_other_weights
from fastchat.model.tokenizer_loading import load_tokenizer
from fastchat.model.weight_files import WeightFiles
from fastchat.on_vllm.engine import VllmEngine
from fastchat.on_vllm.fit import check_fit, check_gpus
from fastchat.on_vllm.forms import FormProcessor, grammars_of

logger = logging.getLogger(__name__)

_ELSEWHERE = {"ray", "external_launcher"}  # executors that look for GPUs on other machines too


def load_served_model(
    model_path: str,
    flags: Sequence[str],
    *,
    num_gpus: int | None = None,
    seed: int | None = None,
    conv_template: str | None = None,
) -> ServedModel:
    """Loads a model into vLLM so that a worker can ask it.

    Args:
        model_path: folder or hub id.
        flags: vLLM's own, as on its command line.
        num_gpus: GPUs that share each layer; the flags' value if None.
        seed: of vLLM's random numbers.
        conv_template: a template's name, or a .json file that holds one; the model's own
            if None.

    Raises:
        CheckpointError: nothing readable there, weights that are missing, or another network.
        SettingsError: settings that this model or this machine cannot be served with.
    """
    chosen = None if conv_template is None else read_conv_template(conv_template)
    parsed = parsed_flags(flags)
    folder = str(local_folder(model_path, revision=parsed.revision or "main"))
    # Before it is made: it looks a model up on the hub at once where it may not go there.
    parsed.model = parsed.tokenizer = folder
    parsed.revision = parsed.tokenizer_revision = None
    args = AsyncEngineArgs.from_cli_args(parsed)
    if num_gpus is not None:
        args.tensor_parallel_size = num_gpus
    if seed is not None:
        args.seed = seed
    # Text and defaults are this side's: vLLM is given token ids and gives token ids.
    args.skip_tokenizer_init = True
    args.generation_config = "vllm"
    args.max_logprobs = max(args.max_logprobs, MAX_LOGPROBS)
    args.scheduling_policy = "priority"
    args.disable_log_stats = True
    args.logits_processors = [*(args.logits_processors or []), FormProcessor]
    if model_type_of(folder) == "yuan":
        _check_yuan(folder, args)
    _check_machine(args)
    llm = _start(args)
    tokenizer = load_tokenizer(folder)
    end_ids = end_token_ids(tokenizer, read_json(folder, "generation_config.json") or {})
    vocab_size = llm.model_config.get_vocab_size()
    return ServedModel(
        path=model_path,
        engine=VllmEngine(
            llm,
            vocabulary_of(tokenizer, end_ids, vocab_size),
            grammars_of(folder, tokenizer, vocab_size),
            context_length=llm.model_config.max_model_len,
        ),
        codec=codec_of(tokenizer),
        chat=renderer_of(tokenizer, folder, chosen),
        conversation=chosen or own_template(folder, end_ids),
        stop_token_ids=end_ids,
        defaults=generation_defaults(folder),
    )


def parsed_flags(flags: Sequence[str]) -> argparse.Namespace:
    """VLLM's own flags; an unknown one ends the program with status 2."""
    parser = FlexibleArgumentParser(
        prog="fastchat.serve.vllm_worker",
        description="Beside the worker's own flags, all of vLLM's engine are known.",
    )
    parsed: argparse.Namespace = AsyncEngineArgs.add_cli_args(parser).parse_args(list(flags))
    return parsed


def _check_yuan(folder: str, args: Any) -> None:
    config = config_of(folder)
    check_fit(
        heads=config.num_attention_heads,
        tensor_parallel=args.tensor_parallel_size,
        quantization=args.quantization,
        drafts=1 if args.speculative_config else 0,
    )
    if args.load_format in ("auto", "safetensors", "pt"):
        with WeightFiles(folder) as weights:
            refuse_other_weights(weights, config)
    if args.trust_remote_code:
        logger.warning("--trust_remote_code has no effect: Yuan2 is part of this package")
        args.trust_remote_code = False


def _check_machine(args: Any) -> None:
    if current_platform.is_cpu() or args.distributed_executor_backend in _ELSEWHERE:
        return
    machines = args.nnodes or 1
    wanted = args.tensor_parallel_size * args.pipeline_parallel_size // machines
    check_gpus(wanted=wanted, found=current_platform.device_count())


def _start(args: AsyncEngineArgs) -> AsyncLLMEngine:
    try:
        return AsyncLLMEngine.from_engine_args(args)
    except (ValueError, VLLMClientError) as error:  # how vLLM refuses settings
        raise SettingsError(f"vLLM refuses these settings: {error}") from error
