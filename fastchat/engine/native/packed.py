"""Weight matrices in the layout that the kernels read: 64 outputs by 32 inputs at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

PackedKind = Literal["float32", "bfloat16", "int8", "int4"]
KINDS: tuple[PackedKind, ...] = get_args(PackedKind)
SOURCE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A weight matrix (N, K) made ready for `Kernels.matmul`.

    Attributes:
        data: its bytes; padded up to whole groups of 64 outputs and chunks of 32 inputs.
        outputs: N.
        inputs: K.
        kind: how its weights are held. `int8` has a scale for each output; `int4` has a scale for
            each output and 32 inputs.
    """

    data: torch.Tensor
    outputs: int
    inputs: int
    kind: PackedKind

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return self.outputs, self.inputs

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads, scales and padding among them."""
        return self.data.numel()
