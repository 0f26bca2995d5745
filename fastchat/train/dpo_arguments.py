"""What can be said on the command line of preference training only.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastchat.errors import SettingsError
from fastchat.train.fields import flag_field


@dataclass(kw_only=True)
class DpoArguments:
    """How answers are preferred to others.

    Raises:
        SettingsError: a value that means nothing.
    """

    use_lora: bool = flag_field(
        "Train an adapter, made as the LoRA flags say, and not all weights.", False
    )
    beta: float = flag_field(
        "How closely the model is held to what it was before: the higher, the closer.", 0.1
    )
    loss_type: Literal["sigmoid", "ipo"] = flag_field(
        "`sigmoid` is DPO as published; `ipo` stops pulling answers apart at a margin of"
        " 1 / (2 beta), on means over an answer's tokens.",
        "sigmoid",
    )
    dpo_label_smoothing: float = flag_field(
        "Share of preferences that are taken to be the wrong way round; `sigmoid` only.", 0.0
    )

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise SettingsError(f"--beta is {self.beta}; a number above 0 is needed.", param="beta")
        if not 0 <= self.dpo_label_smoothing < 0.5:
            raise SettingsError(
                f"--dpo_label_smoothing is {self.dpo_label_smoothing}; a share from 0 to below"
                " 0.5 is needed.",
                param="dpo_label_smoothing",
            )
        if self.dpo_label_smoothing and self.loss_type != "sigmoid":
            raise SettingsError(
                f"--dpo_label_smoothing means nothing with --loss_type {self.loss_type}.",
                hint="Leave it out, or give --loss_type sigmoid.",
                param="dpo_label_smoothing",
            )
