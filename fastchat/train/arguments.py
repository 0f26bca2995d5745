"""What can be said on a trainer's command line, beside transformers' own arguments.

Plain dataclasses: a field's help and type make its flag (see `flags`). Importing this
module loads neither torch nor transformers; `TrainingArguments`, which needs both, is made
when it is first asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fastchat.data.rows import LossMode
from fastchat.data.sources import Source, parse_sources
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

FILTER_CONVOLUTIONS = ("conv1", "conv2")
"""The convolutions of Yuan2's localized filter, through which queries and keys see the two
tokens before."""


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
        SettingsError: more than one of the three loss flags is true, or the share to hold
            out is none.
    """

    data_path: str | list[str] = field(
        metadata={"help": "Conversations: one file or more, .json, .jsonl or .parquet."}
    )
    data_weights: list[str] | None = flag_field(
        "How often an epoch takes each file's conversations: 1 each once, 0.5 a random half of"
        " them, 2 each twice. One number a file."
    )
    eval_data_path: str | list[str] | None = flag_field(
        "Conversations to evaluate on, in the same forms."
    )
    eval_ratio: float = flag_field(
        "Share of the data to hold out and evaluate on, where --eval_data_path is not given.",
        0.0,
    )
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

    packing: bool = flag_field(
        "Lay a batch's conversations out in one row without padding, histories that answers"
        " share once. False pads the rows of a batch to the longest instead.",
        True,
    )
    tokens_per_batch: int | None = flag_field(
        "Fill each device's batches up to this many tokens with as many conversations as fit;"
        " --per_device_train_batch_size then counts such fillings, and is 1 if not given."
    )

    def __post_init__(self) -> None:
        _ = self.sources
        if self.tokens_per_batch is not None and self.tokens_per_batch < 1:
            raise SettingsError(
                f"--tokens_per_batch is {self.tokens_per_batch}; a number from 1 on is needed.",
                param="tokens_per_batch",
            )
        if not 0 <= self.eval_ratio < 1:
            raise SettingsError(
                f"--eval_ratio is {self.eval_ratio}; a share of the data, from 0 to below 1, is"
                " needed.",
                param="eval_ratio",
            )
        chosen = self._chosen()
        if len(chosen) > 1:
            raise SettingsError(
                f"{' and '.join(f'--{mode}' for mode in chosen)} are true together.",
                hint="At most one of the three loss flags may be.",
                param=chosen[1],
            )

    @property
    def sources(self) -> list[Source]:
        """The files to learn from, with their weights."""
        try:
            weights = [float(weight) for weight in self.data_weights or ()]
        except ValueError:
            raise SettingsError(
                f"--data_weights {' '.join(map(str, self.data_weights or ()))} are not numbers.",
                param="data_weights",
            ) from None
        return parse_sources(self.data_path, weights)

    @property
    def eval_sources(self) -> list[Source]:
        """The files to evaluate on; none where there is no --eval_data_path."""
        return parse_sources(self.eval_data_path, None) if self.eval_data_path else []

    @property
    def loss_mode(self) -> LossMode:
        """The chosen loss; `split_example_loss` where none is."""
        return next(iter(self._chosen()), LossMode.SPLIT_EXAMPLE)

    def _chosen(self) -> list[LossMode]:
        return [mode for mode in LossMode if getattr(self, mode.value)]


@dataclass(kw_only=True)
class LoraArguments:
    """How the adapter looks.

    Raises:
        SettingsError: a rank, a scale or a share that means nothing.
    """

    lora_r: int = flag_field("Rank of the adapter's matrices.", 8)
    lora_alpha: int = flag_field("Scale of the adapter: alpha / r.", 16)
    lora_dropout: float = flag_field("Dropout before the adapter's matrices.", 0.05)
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "Layers to adapt, by name; `all` is all seven of Yuan2's projections, as if"
            " nothing is given, and `filter` its localized filter's two convolutions. Give"
            " q_proj and k_proj both or neither: the two matrices interleave heads."
        },
    )
    lora_weight_path: str = flag_field(
        "Folder of an adapter to start from; it stays as it is made, whatever the other flags say.",
        "",
    )
    lora_bias: Literal["none", "all", "lora_only"] = flag_field("Biases to train along.", "none")
    use_rslora: bool = flag_field("Scale the adapter by alpha / sqrt(r).", False)
    use_dora: bool = flag_field("Learn the length of each weight vector by itself.", False)
    q_lora: bool = flag_field("Load the base model in 4 bits (NF4, double quantisation).", False)

    def __post_init__(self) -> None:
        for name, fits, wanted in (
            ("lora_r", self.lora_r >= 1, "a whole number from 1 on"),
            ("lora_alpha", self.lora_alpha >= 1, "a whole number from 1 on"),
            ("lora_dropout", 0 <= self.lora_dropout < 1, "a share from 0 to below 1"),
        ):
            if not fits:
                raise SettingsError(
                    f"--{name} is {getattr(self, name)}; {wanted} is needed.", param=name
                )

    @property
    def target_modules(self) -> list[str]:
        """The layers of a Yuan2 to adapt, by name."""
        groups = {"all": ALL_PROJECTIONS, "filter": FILTER_CONVOLUTIONS}
        asked = self.lora_target_modules or ["all"]
        return list(dict.fromkeys(name for item in asked for name in groups.get(item, (item,))))


def __getattr__(name: str) -> Any:
    if name == "TrainingArguments":
        from fastchat.train.training_arguments import TrainingArguments

        return TrainingArguments
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
