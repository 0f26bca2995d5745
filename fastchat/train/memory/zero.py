"""DeepSpeed's settings for each way of running, and the sizes that they imply.

Sources: DeepSpeed's configuration reference (bucket sizes, live parameters, sub-groups) and
transformers' DeepSpeed integration (what "auto" stands for).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastchat.train.memory.setup import Offload, Stage
from fastchat.train.memory.shape import ModelShape

DEFAULT_BUCKET = 500_000_000
"""reduce_bucket_size, in elements, where the settings do not say."""

MAX_LIVE = 1_000_000_000
"""stage3_max_live_parameters: gathered parameters on a GPU at once, at most."""

SUB_GROUP = 1_000_000_000
"""sub_group_size: parameters of a partition that ZeRO-3's optimizer steps at once."""

_FILES: dict[tuple[Stage, Offload], str] = {
    (2, "none"): "playground/zero2_ds_woloading.json",
    (2, "optimizer"): "playground/deepspeed_config_s2.json",
    (3, "all"): "playground/deepspeed_config_s3.json",
}


@dataclass(frozen=True, slots=True)
class ZeroSizes:
    """Sizes in elements that DeepSpeed's settings fix.

    Attributes:
        bucket: gradients that are reduced at once.
        buffers: buckets that exist; two where one is filled while the other is sent.
        live: gathered parameters at once, at most.
        sub_group: parameters that are stepped at once.
    """

    bucket: int
    buffers: int = 1
    live: int = MAX_LIVE
    sub_group: int = SUB_GROUP


def settings_file(stage: Stage, offload: Offload) -> str | None:
    """The file in playground/ that holds these settings, if one does."""
    return _FILES.get((stage, offload))


def deepspeed_settings(stage: Stage, offload: Offload) -> dict[str, Any] | None:
    """The DeepSpeed JSON for a stage; None for stage 0, which runs without DeepSpeed."""
    if stage == 0:
        return None
    settings: dict[str, Any] = {
        "zero_optimization": _zero_section(stage, offload),
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
    if (stage, offload) == (2, "none"):
        settings["zero_allow_untested_optimizer"] = True
    return settings


def _zero_section(stage: Stage, offload: Offload) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage, "contiguous_gradients": True}
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    plain = (stage, offload) == (2, "none")
    zero |= {"overlap_comm": not plain, "reduce_bucket_size": 5e8 if plain else "auto"}
    if stage == 2:
        zero |= {
            "allgather_partitions": True,
            "allgather_bucket_size": 5e8,
            "reduce_scatter": True,
        }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    return zero


def sizes(settings: dict[str, Any], shape: ModelShape) -> ZeroSizes:
    """The sizes that settings imply for a model."""
    zero = settings["zero_optimization"]
    bucket = zero.get("reduce_bucket_size", DEFAULT_BUCKET)
    return ZeroSizes(
        bucket=shape.hidden**2 if bucket == "auto" else int(bucket),
        buffers=2 if zero.get("overlap_comm") else 1,
        live=int(zero.get("stage3_max_live_parameters", MAX_LIVE)),
        sub_group=int(zero.get("sub_group_size", SUB_GROUP)),
    )
