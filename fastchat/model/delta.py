"""What a delta between two models is: for each tensor, the bits in which they differ.

A floating-point difference cannot give the second model back exactly: base + (target - base)
rounds, and not always to target. So a delta holds the exclusive or of the two tensors' bit
patterns, as integers of the same width, and

    target bits == base bits XOR delta

for every value there is, infinities, NaNs and signed zeros included. It takes as much space as
the target, and where two models are close most of its bits are zero, so it compresses well.

A tensor that the base lacks, or has in another shape, is held whole. Where only the format
differs the base is converted to the target's first. `fastchat_delta.json` says which is which,
and holds digests of both models, so that neither a wrong base nor a wrong result is accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from fastchat.errors import CheckpointError
from fastchat.model.model_folder import read_json
from fastchat.model.weight_files import WeightFiles, write_json

DELTA_FILE = "fastchat_delta.json"
_FORMAT = "xor of bit patterns, 1"
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class DeltaFacts:
    """What the tensors of a delta do not say.

    Attributes:
        dtypes: of the target's tensors, by name.
        whole: tensors that are held as they are.
        base: digest of the base's tensors.
        target: digest of the target's tensors.
    """

    dtypes: dict[str, str]
    whole: list[str]
    base: str
    target: str

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Of a delta's folder; None where there is no such file.

        Raises:
            CheckpointError: the file is of another format, or broken.
        """
        facts = read_json(folder, DELTA_FILE)
        if facts is None:
            return None
        known = {"format", *cls.__slots__}
        if facts.pop("format", None) != _FORMAT or facts.keys() | {"format"} != known:
            raise CheckpointError(
                f"{folder / DELTA_FILE} does not describe a delta of the kind {_FORMAT!r}.",
                hint="Apply it with the version that made it.",
            )
        return cls(**facts)

    def save(self, folder: Path) -> None:
        """Into a delta's folder."""
        content: dict[str, Any] = {"format": _FORMAT, "base": self.base, "target": self.target}
        write_json(folder / DELTA_FILE, content | {"whole": self.whole, "dtypes": self.dtypes})


class Digest:
    """Of a model: of its tensors' names, shapes, formats and bits, in order."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes the next tensor."""
        self._sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.contiguous().flatten()
        self._sha.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")

    def text(self) -> str:
        """The digest of what was taken."""
        return self._sha.hexdigest()


def digest(weights: WeightFiles) -> str:
    """The digest of a model folder's tensors."""
    found = Digest()
    for name, tensor in tensors(weights):
        found.add(name, tensor)
    return found.text()


def tensors(weights: WeightFiles) -> Iterator[tuple[str, Tensor]]:
    """A model folder's tensors, one at a time."""
    for name in weights.names:
        yield name, weights.read(name)


def xor(one: Tensor, other: Tensor) -> Tensor:
    """The bits in which two tensors of one shape and width differ, as integers."""
    return bits(one) ^ bits(other)


def bits(tensor: Tensor) -> Tensor:
    """A tensor's bit patterns, as integers of the same width."""
    return tensor.contiguous().view(_INTEGERS[tensor.element_size()])
