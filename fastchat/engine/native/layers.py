"""All decoder layers in one call, for steps in which no adapter takes part."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastchat.engine.native.library import ThreadPool, bind, checked
from fastchat.engine.native.packed import KINDS, PackedMatrix

_LONG, _POINTER, _FLOAT = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
_MATRICES = ("conv1", "conv2", "qk", "value", "output", "up_gate", "down")
_VECTORS = ("conv1_bias", "conv2_bias", "filter_norm", "input_norm", "mlp_norm")
_WRONG = ("previous", "positions or slots", "starts, contexts or tables", "state_rows", "rows")
_CACHE_DTYPES = (torch.float32, torch.bfloat16)


class _Matrix(ctypes.Structure):
    _fields_ = [("data", _POINTER), ("kind", _LONG), ("outputs", _LONG), ("inputs", _LONG)]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Matrix) for name in _MATRICES),
        *((name, _POINTER) for name in (*_VECTORS, "inputs", "narrow", "keys", "values")),
    ]


class _Network(ctypes.Structure):
    _fields_ = [
        ("layers", ctypes.POINTER(_Layer)),
        *((name, _LONG) for name in ("count", "hidden", "intermediate", "heads")),
        *((name, _LONG) for name in ("places", "blocks", "cache_dtype", "positions")),
        ("angles", _POINTER),
        ("eps", _FLOAT),
        ("filter_eps", _FLOAT),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, _LONG) for name in ("tokens", "sequences", "longest", "states", "rows")),
        *((name, _POINTER) for name in ("positions", "previous", "starts", "contexts", "tables")),
        *((name, _POINTER) for name in ("slots", "state_rows", "state_places", "kept_rows")),
    ]


@dataclass(frozen=True, slots=True)
class LayerParts:
    """One decoder layer's weights and what it keeps; all tensors float32 but for the cache.

    Attributes:
        matrices: by the names conv1, conv2, qk, value, output, up_gate and down.
        vectors: by the names conv1_bias, conv2_bias, filter_norm, input_norm and mlp_norm.
        keys, values: from `Kernels.new_cache`.
        inputs, narrow: kept filter states, (places, H) and (places, H / 2).
    """

    matrices: Mapping[str, PackedMatrix]
    vectors: Mapping[str, Tensor]
    keys: Tensor
    values: Tensor
    inputs: Tensor
    narrow: Tensor


class LayerStack:
    """Yuan2's decoder layers, one behind the other.

    Args:
        pool: threads to compute with.
        parts: of each layer; kept alive by this.
        heads: N.
        angles: (positions, D), see `Kernels.rope_store`.
        eps, filter_eps: of the norms, and of the filter's own.
    """

    def __init__(
        self,
        pool: ThreadPool,
        parts: Sequence[LayerParts],
        *,
        heads: int,
        angles: Tensor,
        eps: float,
        filter_eps: float,
    ) -> None:
        self._pool = pool
        self._kept = (parts, angles)
        self._hidden = parts[0].matrices["down"].outputs
        self._layers = (_Layer * len(parts))(*map(_layer, parts))
        self._network = _Network(
            layers=self._layers,
            count=len(parts),
            hidden=self._hidden,
            intermediate=parts[0].matrices["down"].inputs,
            heads=heads,
            places=len(parts[0].inputs),
            blocks=len(parts[0].keys),
            cache_dtype=_CACHE_DTYPES.index(parts[0].keys.dtype),
            positions=len(angles),
            angles=checked("angles", angles, (None, None), torch.float32),
            eps=eps,
            filter_eps=filter_eps,
        )
        self._run = bind(
            pool.cdll, "fastchat_layers", [_POINTER, _POINTER, _POINTER, _POINTER], ctypes.c_int
        )

    def run(
        self,
        states: Tensor,
        *,
        positions: Tensor,
        previous: Tensor,
        starts: Tensor,
        contexts: Tensor,
        tables: Tensor,
        slots: Tensor,
        state_rows: Tensor,
        state_places: Tensor,
        rows: Tensor | None,
    ) -> Tensor:
        """Takes a step through all layers.

        Args:
            states: (T, H), overwritten.
            positions, previous, starts, contexts, tables, slots: see `Kernels`.
            state_rows, state_places: (S,) int64, rows whose filter states are kept, and where.
            rows: (Q,) int64, ascending, those that are wanted; all if None.

        Returns:
            (Q, H), in the memory of `states`.
        """
        tokens, (sequences, longest) = len(states), tables.shape
        step = _Step(
            tokens=tokens,
            sequences=sequences,
            longest=longest,
            states=len(state_rows),
            rows=tokens if rows is None else len(rows),
            positions=checked("positions", positions, (tokens,), torch.int32),
            previous=checked("previous", previous, (tokens,), torch.int32),
            starts=checked("starts", starts, (sequences + 1,), torch.int32),
            contexts=checked("contexts", contexts, (sequences,), torch.int32),
            tables=checked("tables", tables, (None, None), torch.int32),
            slots=checked("slots", slots, (tokens,), torch.int64),
            state_rows=checked("state_rows", state_rows, (None,), torch.int64),
            state_places=checked("state_places", state_places, state_rows.shape, torch.int64),
            kept_rows=None if rows is None else checked("rows", rows, (None,), torch.int64),
        )
        address = checked("states", states, (tokens, self._hidden), torch.float32)
        fault = self._run(
            self._pool.handle, ctypes.byref(self._network), ctypes.byref(step), address
        )
        if fault:
            raise ValueError(f"{_WRONG[fault - 1]} name places that are not there")
        return states[: step.rows]


def _layer(parts: LayerParts) -> _Layer:
    matrices = {
        name: _Matrix(
            data=matrix.data.data_ptr(),
            kind=KINDS.index(matrix.kind),
            outputs=matrix.outputs,
            inputs=matrix.inputs,
        )
        for name, matrix in parts.matrices.items()
    }
    vectors = {
        name: checked(name, vector, (None,), torch.float32)
        for name, vector in parts.vectors.items()
    }
    return _Layer(
        **matrices,
        **vectors,
        inputs=checked("inputs", parts.inputs, (None, None), torch.float32),
        narrow=checked("narrow", parts.narrow, (None, None), torch.float32),
        keys=parts.keys.data_ptr(),
        values=parts.values.data_ptr(),
    )
