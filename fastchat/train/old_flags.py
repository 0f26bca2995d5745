"""Flags of the transformers releases that FastChat's guides were written for.

Each is accepted and becomes what says the same today, or is left out with a note. Only
the flags that the installed transformers no longer knows are looked after here. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastchat.errors import SettingsError
from fastchat.train.flags import Flag, flag

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OldFlag:
    """A flag of earlier days.

    Attributes:
        flag: how it is read.
        needs: the flags that it turns into.
        apply: changes the values for the value given; returns a note for the user, or None.
        replaces: whether it takes the place of a flag of the same name that is still known.
    """

    flag: Flag
    needs: tuple[str, ...]
    apply: Callable[[Values, Any], str | None]
    replaces: bool = False


def old_flags(known: Mapping[str, Flag]) -> dict[str, OldFlag]:
    """Those old flags that have to be looked after beside the known ones."""
    return {
        old.flag.name: old
        for old in _OLD_FLAGS
        if all(name in known for name in old.needs) and (old.replaces or old.flag.name not in known)
    }


def modernise(values: Values, old_values: Values, old: Mapping[str, OldFlag]) -> list[str]:
    """Carries the values of old flags over; returns notes for the user.

    Args:
        values: the values of today's flags; changed.
        old_values: the values of old flags that were given.
        old: the old flags.

    Raises:
        SettingsError: an old flag holds a value that cannot be used.
    """
    notes = [old[name].apply(values, value) for name, value in old_values.items()]
    return [note for note in notes if note]


def _old(
    name: str,
    annotation: str,
    needs: tuple[str, ...],
    apply: Callable[[Values, Any], str | None],
    *,
    replaces: bool = False,
) -> OldFlag:
    made = flag(name, annotation, hidden=True, bare=name == "fsdp" or annotation == "bool")
    assert made is not None, name
    return OldFlag(made, needs, apply, replaces)


def _renamed(name: str, new: str, annotation: str = "str", *, replaces: bool = False) -> OldFlag:
    def apply(values: Values, value: Any) -> None:
        values.setdefault(new, value)

    return _old(name, annotation, (new,), apply, replaces=replaces)


def _ignored(name: str, annotation: str, reason: str) -> OldFlag:
    return _old(name, annotation, (), lambda *_: f"--{name} has no effect: {reason}.")


def _chosen(name: str, new: str, choice: str) -> OldFlag:
    """A switch that became one choice of a newer flag."""

    def apply(values: Values, value: bool) -> None:
        if value:
            values.setdefault(new, choice)

    return _old(name, "bool", (new,), apply)


def _warmup_ratio(values: Values, ratio: float) -> str | None:
    if not 0 <= ratio < 1:
        raise SettingsError(
            f"--warmup_ratio is {ratio}; a share of all steps, from 0 to below 1, is needed.",
            param="warmup_ratio",
        )
    if values.get("warmup_steps"):
        return "--warmup_ratio has no effect beside --warmup_steps."
    values["warmup_steps"] = ratio
    return None


_FSDP_WORDS: Mapping[str, Mapping[str, Any]] = {
    "full_shard": {"reshard_after_forward": True},
    "shard_grad_op": {"reshard_after_forward": False},
    "offload": {"cpu_offload": True},
    "auto_wrap": {},
}


def _fsdp(values: Values, words: Any) -> None:
    if str(words).lower() in ("true", "false", ""):
        values["fsdp"] = str(words).lower() == "true"
        return
    config = _fsdp_config(values)
    for word in str(words).split():
        if word not in _FSDP_WORDS:
            raise SettingsError(
                f"--fsdp holds {word!r}; known are {', '.join(_FSDP_WORDS)}.", param="fsdp"
            )
        for name, setting in _FSDP_WORDS[word].items():
            config.setdefault(name, setting)
    values["fsdp"] = True


def _fsdp_layers(values: Values, names: str) -> None:
    _fsdp_config(values).setdefault("transformer_layer_cls_to_wrap", names.split(","))


def _fsdp_min_num_params(values: Values, number: int) -> None:
    if number:
        config = _fsdp_config(values)
        config.setdefault("min_num_params", number)
        config.setdefault("auto_wrap_policy", "SIZE_BASED_WRAP")


def _fsdp_config(values: Values) -> dict[str, Any]:
    """The FSDP settings as a dict that can be added to."""
    config = values.get("fsdp_config") or {}
    if isinstance(config, str):
        text = config if config.lstrip().startswith("{") else _read(config)
        try:
            config = json.loads(text)
        except json.JSONDecodeError as error:
            raise SettingsError(
                f"--fsdp_config is not valid JSON: {error}.", param="fsdp_config"
            ) from None
    values["fsdp_config"] = config
    settings: dict[str, Any] = config
    return settings


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"--fsdp_config {path} cannot be read: {error.strerror}.", param="fsdp_config"
        ) from None


_GONE = "transformers has no such setting any more"

_OLD_FLAGS = (
    _renamed("evaluation_strategy", "eval_strategy"),
    _renamed("per_gpu_train_batch_size", "per_device_train_batch_size", "int"),
    _renamed("per_gpu_eval_batch_size", "per_device_eval_batch_size", "int"),
    _renamed("no_cuda", "use_cpu", "bool"),
    _renamed("torchdynamo", "torch_compile_backend"),
    _renamed("xpu_backend", "ddp_backend"),
    _renamed("push_to_hub_token", "hub_token"),
    _renamed("push_to_hub_model_id", "hub_model_id"),
    _renamed("gradient_checkpointing", "activation_checkpointing", "bool", replaces=True),
    _renamed("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs", replaces=True),
    _chosen("group_by_length", "train_sampling_strategy", "group_by_length"),
    _chosen("adafactor", "optim", "adafactor"),
    _old("warmup_ratio", "float", ("warmup_steps",), _warmup_ratio),
    _old("fsdp", "str", ("fsdp", "fsdp_config"), _fsdp, replaces=True),
    _old("fsdp_transformer_layer_cls_to_wrap", "str", ("fsdp_config",), _fsdp_layers),
    _old("fsdp_min_num_params", "int", ("fsdp_config",), _fsdp_min_num_params),
    _ignored(
        "overwrite_output_dir",
        "bool",
        "checkpoints in --output_dir are resumed from; remove them, or give"
        " --resume_from_checkpoint False, to start anew",
    ),
    _ignored("logging_dir", "str", "TensorBoard's folder is set by TENSORBOARD_LOGGING_DIR"),
    _ignored("save_safetensors", "bool", "weights are always saved as safetensors"),
    _ignored("use_mps_device", "bool", "an Apple GPU is used if there is one"),
    _ignored("half_precision_backend", "str", "mixed precision always uses torch's autocast"),
    _ignored("fp16_backend", "str", "mixed precision always uses torch's autocast"),
    _ignored("fp16_opt_level", "str", "mixed precision always uses torch's autocast"),
    _ignored("include_tokens_per_second", "bool", _GONE),
    _ignored("include_inputs_for_metrics", "bool", _GONE),
    _ignored("push_to_hub_organization", "str", "name it in --hub_model_id"),
    _ignored("use_legacy_prediction_loop", "bool", _GONE),
    _ignored("past_index", "int", _GONE),
    _ignored("mp_parameters", "str", _GONE),
    _ignored("use_ipex", "bool", _GONE),
    _ignored("jit_mode_eval", "bool", _GONE),
    _ignored("tpu_num_cores", "int", _GONE),
    _ignored("tpu_metrics_debug", "bool", _GONE),
    _ignored("ray_scope", "str", _GONE),
    _ignored("sharded_ddp", "str", "use --deepspeed or --fsdp"),
)
