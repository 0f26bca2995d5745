"""Reads and writes a checkpoint's tensors one at a time, so that no model has to fit in memory.

Knows the file formats (.safetensors, .bin, one file or shards with an index), and of the
model only which of its tensors are one. Imports no transformers.

    with WeightFiles(folder) as weights:
        for name in weights.names:
            tensor = weights.read(name)
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fastchat.errors import CheckpointError
from fastchat.model.model_folder import read_json

SHARD_BYTES = 5_000_000_000
"""Size of a written file at most, unless a single tensor is larger."""

_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_COMPUTED = "rotary_emb.inv_freq"  # older exports hold it; every reader computes its own
_STEMS = ("model*", "pytorch_model*", "adapter_model")
_FORMATS = (
    ("safetensors", "model.safetensors.index.json"),
    ("bin", "pytorch_model.bin.index.json"),
)


class WeightFiles:
    """The tensors of a model folder, by their published names.

    An output matrix that is tied to the embedding, and left out of the files, is there.

    Args:
        folder: with .safetensors or .bin files; the former win if there are both.

    Raises:
        CheckpointError: there are no weights, or files of an index are missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._open: dict[str, Any] = {}
        self._files = self._find()
        self.names = sorted(name for name in self._files if not name.endswith(_COMPUTED))
        config = read_json(folder, "config.json") or {}
        tied = config.get("tie_word_embeddings", True) and _EMBEDDING in self._files
        self._same = {_HEAD: _EMBEDDING} if tied and _HEAD not in self._files else {}
        self.names += self._same

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.clear()

    def __contains__(self, name: object) -> bool:
        return name in self._files or name in self._same

    def read(self, name: str) -> Tensor:
        """A tensor, on the CPU.

        Raises:
            CheckpointError: there is no such tensor, or its file is damaged.
        """
        stored = self._same.get(name, name)
        if stored not in self._files:
            raise CheckpointError(f"{self.folder} holds no weights named {name}.")
        path = self.folder / self._files[stored]
        try:
            content = self._content(path)
            return content[stored] if isinstance(content, dict) else content.get_tensor(stored)
        except (OSError, RuntimeError, KeyError, SafetensorError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{name} cannot be read from {path}: {error}.",
                hint="Copy or download the checkpoint again.",
            ) from error

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; of a .safetensors file, its numbers are not read for it.

        Raises:
            CheckpointError: as `read`.
        """
        stored = self._same.get(name, name)
        path = self.folder / self._files.get(stored, "")
        if stored not in self._files or path.suffix != ".safetensors":
            return tuple(self.read(name).shape)
        return tuple(self._content(path).get_slice(stored).get_shape())

    def _content(self, path: Path) -> Any:
        if path.name not in self._open:
            self._open.clear()  # one file at a time
            self._open[path.name] = _open(path)
        return self._open[path.name]

    def _find(self) -> dict[str, str]:
        for suffix, index in _FORMATS:
            shards = (read_json(self.folder, index) or {}).get("weight_map")
            if isinstance(shards, dict):
                _check_there(self.folder, shards, index)
                return dict(shards)
            found = [file for stem in _STEMS for file in self.folder.glob(f"{stem}.{suffix}")]
            if found:
                return {name: file.name for file in found for name in self._names_in(file)}
        raise CheckpointError(f"{self.folder} holds no weights: no .safetensors and no .bin file.")

    def _names_in(self, path: Path) -> list[str]:
        try:
            return list(self._content(path).keys())
        except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{path} cannot be read: {error}.", hint="Copy or download the checkpoint again."
            ) from error


def refuse_missing_files(folder: str | Path) -> None:
    """Refuses a folder that lacks weight files which its index names; opens none.

    Raises:
        CheckpointError: names the files.
    """
    for suffix, index in _FORMATS:
        shards = (read_json(folder, index) or {}).get("weight_map")
        if isinstance(shards, dict):
            _check_there(Path(folder), shards, index)
        if shards or any(Path(folder).glob(f"*.{suffix}")):
            return


def _check_there(folder: Path, shards: Mapping[str, str], index: str) -> None:
    missing = sorted(file for file in set(shards.values()) if not (folder / file).is_file())
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}, named in {index}.",
            hint="Copy or download the checkpoint again.",
        )


def _open(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safe_open(path, framework="pt")
    return torch.load(path, map_location="cpu", mmap=True, weights_only=True)


class ShardWriter:
    """Writes tensors into .safetensors files as they come, and an index of them.

    Args:
        folder: where to; it has to exist.
        shard_bytes: size of a file at most.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._limit = shard_bytes
        self._pending: dict[str, Tensor] = {}
        self._shards: list[list[str]] = []
        self._bytes = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes a tensor; it must not change before `finish`."""
        if self._pending and self._size() + tensor.nbytes > self._limit:
            self._flush()
        self._pending[name] = tensor.contiguous()
        self._bytes += tensor.nbytes

    def finish(self) -> None:
        """Writes what is left, gives the files their names, and writes the index."""
        self._flush()
        count = len(self._shards)
        if count == 1:
            self._part(0).rename(self._folder / "model.safetensors")
            return
        places: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05}-of-{count:05}.safetensors"
            self._part(number).rename(self._folder / file)
            places |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self._bytes}, "weight_map": places}
        write_json(self._folder / "model.safetensors.index.json", index)

    def _size(self) -> int:
        return sum(tensor.nbytes for tensor in self._pending.values())

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number}.safetensors"

    def _flush(self) -> None:
        path = self._part(len(self._shards))
        path.touch()  # with the rights that the user's files get; safetensors would narrow them
        rights = path.stat().st_mode
        save_file(self._pending, path, metadata={"format": "pt"})
        path.chmod(rights)
        self._shards.append(list(self._pending))
        self._pending = {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file as transformers does: indented, in UTF-8."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
