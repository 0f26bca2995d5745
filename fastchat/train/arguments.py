"""What can be said on a trainer's command line, beside transformers' own arguments.

Plain dataclasses: a field's help and type make its flag (see `flags`). Importing this
module loads neither torch nor transformers; `TrainingArguments`, which needs both, is made
when it is first asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fastchat.data.rows import LossMode
from fastchat.errors import SettingsError
from fastchat.train.fields import flag_field

if TYPE_CHECKING:
    from fastchat.train.training_arguments import TrainingArguments

__all__ = [
    "DataArguments",
    "LoraArguments",
    "ModelArguments",
    "TrainingArguments",
]

ALL_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Yuan2's linear layers. Its q and k matrices hold queries and keys of interleaved heads, so
an adapter on one of the two alone would reach the queries of half the heads only."""


@dataclass(kw_only=True)
class ModelArguments:
    """Which model is trained."""

    model_name_or_path: str = field(metadata={"help": "Folder or hub id of the model to train."})
    trust_remote_code: bool = flag_field(
        "Accepted for old command lines; Yuan2 needs no code from its folder.", False
    )
    padding_side: Literal["right", "left"] = flag_field(
        "Side on which a batch's short rows are padded.", "right"
    )


@dataclass(kw_only=True)
class DataArguments:
    """Which conversations are learned, and what of them.

    Raises:
        SettingsError: more than one of the three loss flags is true.
    """

    data_path: str = field(metadata={"help": "ShareGPT conversations, .json or .jsonl."})
    eval_data_path: str | None = flag_field("Conversations to evaluate on, in the same form.")
    lazy_preprocess: bool = flag_field(
        "Build each row again when it is needed, which saves memory.", False
    )
    last_response_loss: bool = flag_field("Learn the last answer of each conversation only.", False)
    split_example_loss: bool = flag_field(
        "Make k rows of a conversation with k answers; each learns its last one, exactly as"
        " it is served. The default if none of the three loss flags is true.",
        False,
    )
    efficient_loss: bool = flag_field(
        "Learn all answers of a conversation in one row; approximate for all but the last.",
        False,
    )

    def __post_init__(self) -> None:
        chosen = self._chosen()
        if len(chosen) > 1:
            raise SettingsError(
                f"{' and '.join(f'--{mode}' for mode in chosen)} are true together.",
                hint="At most one of the three loss flags may be.",
                param=chosen[1],
            )

    @property
    def loss_mode(self) -> LossMode:
        """The chosen loss; `split_example_loss` where none is."""
        return next(iter(self._chosen()), LossMode.SPLIT_EXAMPLE)

    def _chosen(self) -> list[LossMode]:
        return [mode for mode in LossMode if getattr(self, mode.value)]


@dataclass(kw_only=True)
class LoraArguments:
    """How the adapter looks."""

    lora_r: int = flag_field("Rank of the adapter's matrices.", 8)
    lora_alpha: int = flag_field("Scale of the adapter: alpha / r.", 16)
    lora_dropout: float = flag_field("Dropout before the adapter's matrices.", 0.05)
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "Layers to adapt; all seven of Yuan2 if not given. Give q_proj and k_proj"
            " both or neither: the two matrices interleave heads."
        },
    )
    lora_weight_path: str = flag_field("Folder of an adapter to start from.", "")
    lora_bias: Literal["none", "all", "lora_only"] = flag_field("Biases to train along.", "none")
    q_lora: bool = flag_field("Load the base model in 4 bits (NF4, double quantisation).", False)

    @property
    def target_modules(self) -> list[str]:
        """The layers to adapt."""
        return self.lora_target_modules or list(ALL_PROJECTIONS)


def __getattr__(name: str) -> Any:
    if name == "TrainingArguments":
        from fastchat.train.training_arguments import TrainingArguments

        return TrainingArguments
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
