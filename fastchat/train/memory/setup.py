"""What a plan is asked for, and one way of running it that may or may not fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from fastchat.errors import SettingsError
from fastchat.train.arguments import ALL_PROJECTIONS
from fastchat.train.memory.shape import ModelShape

Mode = Literal["full", "lora", "qlora"]
Offload = Literal["none", "optimizer", "all"]
Stage = Literal[0, 1, 2, 3]

UPSTREAM_TARGETS = ("q_proj", "v_proj")
"""The layers that FastChat's LoRA adapts if nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpec:
    """What is to be trained, and on what. None means: find the fastest that fits.

    Attributes:
        shape: the model.
        gpus: how many GPUs in all.
        memory: of one GPU, in GiB.
        mode: all weights, an adapter, or an adapter on weights in 4 bits.
        zero: DeepSpeed's ZeRO stage; 0 is plain data parallelism without DeepSpeed.
        offload: what is held in the machine's memory instead of the GPU's.
        batch_size: conversations a GPU and micro-batch.
        global_batch_size: conversations an optimizer step.
        max_length: longest row, in tokens.
        mean_length: mean of all rows, in tokens; None plans for every row at `max_length`.
        gradient_checkpointing: keep one state a layer, and compute a layer's others again.
        lora_r: rank of the adapter.
        lora_targets: adapted projections; None is this project's (or upstream's) default.
        lora_dropout: before the adapter's matrices.
        upstream: what FastChat's own Yuan2 training needs: rows padded to `max_length`, logits
            of every token, attention that holds its matrix.

    Raises:
        SettingsError: a value outside its range, or values that do not go together.
    """

    shape: ModelShape
    gpus: int
    memory: float
    mode: Mode = "full"
    zero: Stage | None = None
    offload: Offload | None = None
    batch_size: int | None = None
    global_batch_size: int = 128
    max_length: int = 1024
    mean_length: int | None = None
    gradient_checkpointing: bool | None = None
    lora_r: int = 8
    lora_targets: tuple[str, ...] | None = None
    lora_dropout: float = 0.05
    upstream: bool = False

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_combination()
        for module in self.targets:
            self.shape.widths(module)

    @property
    def targets(self) -> tuple[str, ...]:
        """The projections that get an adapter; none in full training."""
        if self.mode == "full":
            return ()
        return self.lora_targets or (UPSTREAM_TARGETS if self.upstream else ALL_PROJECTIONS)

    @property
    def mean(self) -> int:
        """Mean length of a row in tokens."""
        return self.mean_length or self.max_length

    def _check_numbers(self) -> None:
        counts = {
            "gpus": self.gpus,
            "batch_size": self.batch_size,
            "global_batch_size": self.global_batch_size,
            "model_max_length": self.max_length,
            "mean_length": self.mean_length,
            "lora_r": self.lora_r,
        }
        for name, count in counts.items():
            if count is not None and count < 1:
                raise _unusable(name, count, "a whole number of at least 1")
        if not (math.isfinite(self.memory) and self.memory > 0):
            raise _unusable("memory", self.memory, "a number of GiB above 0")
        if self.mean > self.max_length:
            raise _unusable("mean_length", self.mean, f"at most the longest row, {self.max_length}")
        if not 0 <= self.lora_dropout < 1:
            raise _unusable("lora_dropout", self.lora_dropout, "a share from 0 to below 1")
        for name, value, allowed in (
            ("mode", self.mode, get_args(Mode)),
            ("zero", self.zero, (None, *get_args(Stage))),
            ("offload", self.offload, (None, *get_args(Offload))),
        ):
            if value not in allowed:
                raise _unusable(name, value, f"one of {', '.join(map(str, allowed))}")

    def _check_combination(self) -> None:
        if self.mode == "qlora" and (self.zero == 3 or self.offload not in (None, "none")):
            raise SettingsError(
                "QLoRA goes neither with ZeRO-3 nor with offloading: weights in 4 bits are"
                " not cut up.",
                hint="Use --mode qlora with --zero 0, or --mode lora with --zero 3.",
                param="zero" if self.zero == 3 else "offload",
            )
        needed = {"optimizer": (1, 2, 3), "all": (3,)}.get(self.offload or "none")
        if needed and self.zero is not None and self.zero not in needed:
            raise SettingsError(
                f"--offload {self.offload} needs --zero {' or '.join(map(str, needed))};"
                f" --zero {self.zero} was given.",
                param="offload",
            )


def _unusable(name: str, value: object, needed: str) -> SettingsError:
    flag = "--" + name.replace("_", "-")
    return SettingsError(f"{flag} is {value}; {needed} is needed.", param=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One way of running what a spec asks for: every choice made."""

    spec: PlanSpec = field(repr=False)
    zero: Stage
    offload: Offload
    batch_size: int
    gradient_checkpointing: bool

    @property
    def accumulation(self) -> int:
        """Micro-batches a step, so that a step has about the wanted conversations."""
        at_once = self.spec.gpus * self.batch_size
        return max(1, round(self.spec.global_batch_size / at_once))

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch that memory has to hold.

        Padded rows are all of the longest's length. Rows that are not padded: one of the
        longest, the others of mean length.
        """
        longest, others = self.spec.max_length, self.batch_size - 1
        return longest + others * (longest if self.spec.upstream else self.spec.mean)

    @property
    def label(self) -> str:
        """What tells this setup from others, for people."""
        parts = [f"ZeRO-{self.zero}" if self.zero else "no ZeRO"]
        if self.offload != "none":
            parts.append(f"{self.offload} offloaded")
        parts.append(f"{'with' if self.gradient_checkpointing else 'no'} gradient checkpointing")
        parts.append(f"batch {self.batch_size}")
        return ", ".join(parts)
