"""The engine's kernels on tensors: packed products, norms, filter taps, rotation, attention.

Activations are float32. Every output element is summed in one fixed order, whatever the number of
rows, their place in the batch or the number of threads: a row's result has the same bits alone and
in a crowd. T and M count rows, H and C widths, N heads, D a head's width.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from fastchat.engine.native.library import ThreadPool, bind, checked
from fastchat.engine.native.packed import KINDS, SOURCE_DTYPES, PackedKind, PackedMatrix

BLOCK_SIZE = 16

_WIDEST = 1024
_CACHE_DTYPES = (torch.float32, torch.bfloat16)
_TYPES: dict[str, type] = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "l": ctypes.c_int64,
    "f": ctypes.c_float,
}
# Arguments, then the result, a letter each. The first argument is the pool where there is one.
_SIGNATURES = {
    "packed_bytes": "ill l",
    "cache_width": "l l",
    "large_pages": "pl i",
    "pack": "piplilplllp i",
    "matmul": "pipllplplpip i",
    "rms_norm": "ppppfllp i",
    "filter_pairs": "pppplllp i",
    "silu_mul": "ppllp i",
    "rope_store": "pplplplppllllipplp i",
    "attend": "ppllppilpppllllpf i",
}


class Kernels:
    """The kernels, with threads of their own. One thread may call it at a time to gain from them.

    Args:
        threads: how many work on one call.
        pool: threads to share instead.

    Raises:
        NativeUnavailableError: they cannot be compiled or loaded here.
    """

    def __init__(self, threads: int, *, pool: ThreadPool | None = None) -> None:
        self.pool = ThreadPool(threads) if pool is None else pool
        self._call = {
            name: bind(
                self.pool.cdll,
                f"fastchat_{name}",
                [_TYPES[letter] for letter in signature[:-2]],
                _TYPES[signature[-1]],
            )
            for name, signature in _SIGNATURES.items()
        }

    def pack(
        self,
        weight: torch.Tensor | Sequence[torch.Tensor],
        kind: PackedKind,
        *,
        row_order: torch.Tensor | None = None,
    ) -> PackedMatrix:
        """Copies a weight matrix into the kernels' layout, each byte of it read once.

        Args:
            weight: (N, K) float32, bfloat16 or float16; rows may be strided or memory-mapped.
                Or parts of it, one behind the other, alike in all but their content.
            kind: how to hold it.
            row_order: (N,) int64; output n is row `row_order[n]`, for regrouped heads.
        """
        parts = [weight] if isinstance(weight, torch.Tensor) else list(weight)
        first = parts[0]
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: it is one of {', '.join(KINDS)}")
        if first.dtype not in SOURCE_DTYPES:
            raise ValueError(f"weight is {first.dtype}; it must be one of {SOURCE_DTYPES}")
        if any(part.stride() != first.stride() for part in parts):
            raise ValueError("the parts of a weight must have the same strides")
        shape = tuple(first.shape) if len(parts) > 1 else (None, None)
        addresses = [checked("weight", part, shape, first.dtype, strided=True) for part in parts]
        rows, inputs = first.shape[0] * len(parts), first.shape[1]
        outputs = rows if row_order is None else row_order.shape[0]
        order = None
        if row_order is not None:
            order = checked("row_order", row_order, (outputs,), torch.int64)
        code = KINDS.index(kind)
        size = self._call["packed_bytes"](code, outputs, inputs)
        data = torch.empty(size, dtype=torch.uint8)
        fault = self._call["pack"](
            self.pool.handle,
            code,
            (ctypes.c_void_p * len(parts))(*addresses),
            first.shape[0],
            SOURCE_DTYPES.index(first.dtype),
            first.stride(0),
            order,
            rows,
            outputs,
            inputs,
            data.data_ptr(),
        )
        if fault:
            raise ValueError(f"row_order names rows outside 0..{rows - 1}")
        return PackedMatrix(data, outputs, inputs, kind)

    def matmul(
        self,
        x: torch.Tensor,
        weight: PackedMatrix,
        out: torch.Tensor,
        *,
        add: bool = False,
        bias: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
    ) -> None:
        """`out = x @ weight.T (+ bias) (+ out)`.

        Args:
            x: (T, K).
            weight: (N, K), packed.
            out: (M, N), written; must not overlap `x`.
            add: add to what `out` holds.
            bias: (N,).
            rows: (M,) int64, the rows of `x` to use; all of them if None.
        """
        count = x.shape[0] if rows is None else rows.shape[0]
        source = checked("x", x, (None, weight.inputs), torch.float32)
        target = checked("out", out, (count, weight.outputs), torch.float32)
        picked = None
        if rows is not None:
            picked = checked("rows", rows, (count,), torch.int64)
        fault = self._call["matmul"](
            self.pool.handle,
            KINDS.index(weight.kind),
            weight.data.data_ptr(),
            weight.outputs,
            weight.inputs,
            source,
            x.shape[0],
            picked,
            count,
            None if bias is None else checked("bias", bias, (weight.outputs,), torch.float32),
            int(add),
            target,
        )
        if fault:
            raise ValueError(f"rows names rows outside 0..{x.shape[0] - 1}")

    def room(self, rows: int, columns: int) -> torch.Tensor:
        """Memory for a large result that is used again and again: (rows, columns) float32."""
        found = torch.empty(rows, columns)
        self._call["large_pages"](found.data_ptr(), found.nbytes)
        return found

    def rms_norm(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        out: torch.Tensor,
        *,
        residual: torch.Tensor | None = None,
    ) -> None:
        """`out = s / sqrt(mean(s^2) + eps) * weight` with `s = x (+ residual)`, row by row.

        Args:
            x, residual, out: (T, H); `out` may be one of the others.
            weight: (H,).
            eps: added to the mean square.
        """
        count, width = x.shape
        shape = (count, width)
        self._call["rms_norm"](
            self.pool.handle,
            checked("x", x, shape, torch.float32),
            None if residual is None else checked("residual", residual, shape, torch.float32),
            checked("weight", weight, (width,), torch.float32),
            eps,
            count,
            width,
            checked("out", out, shape, torch.float32),
        )

    def filter_pairs(
        self,
        states: torch.Tensor,
        previous: torch.Tensor,
        stored: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """`out[t] = [state before t, states[t]]`: the two taps of Yuan2's filter side by side.

        Args:
            states: (T, C).
            previous: (T,) int32; what comes before row t: row p for p >= 0, zeros for -1,
                `stored[-2 - p]` for p < -1.
            stored: (S, C); S may be 0.
            out: (T, 2C), written.
        """
        count, width = states.shape
        source = checked("states", states, (count, width), torch.float32)
        before = checked("previous", previous, (count,), torch.int32)
        kept = checked("stored", stored, (None, width), torch.float32)
        extra = stored.shape[0]
        target = checked("out", out, (count, 2 * width), torch.float32)
        fault = self._call["filter_pairs"](
            self.pool.handle, source, before, kept, extra, count, width, target
        )
        if fault:
            raise ValueError(f"previous names states outside {-1 - extra}..{count - 1}")

    def silu_mul(self, gate_up: torch.Tensor, out: torch.Tensor) -> None:
        """`out = silu(gate_up[:, :F]) * gate_up[:, F:]`.

        Args:
            gate_up: (T, 2F), the activated half first.
            out: (T, F), written.
        """
        count, width = out.shape
        source = checked("gate_up", gate_up, (count, 2 * width), torch.float32)
        target = checked("out", out, (count, width), torch.float32)
        self._call["silu_mul"](self.pool.handle, source, count, width, target)

    def new_cache(
        self,
        blocks: int,
        heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype,
        block_size: int = BLOCK_SIZE,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Zeroed keys and values of one layer, in the layout of `rope_store` and `attend`.

        The first axis counts blocks, so blocks are copied by indexing; the rest is private.

        Args:
            blocks, heads: how many.
            head_dim: D, even.
            dtype: float32 or bfloat16.
            block_size: tokens of a block; 16 is the only one there is.
        """
        if block_size != BLOCK_SIZE:
            raise ValueError(f"block_size={block_size}: blocks hold {BLOCK_SIZE} tokens")
        if dtype not in _CACHE_DTYPES:
            raise ValueError(f"dtype={dtype}: caches are one of {_CACHE_DTYPES}")
        if head_dim < 2 or head_dim % 2:
            raise ValueError(f"head_dim={head_dim}: it must be even, as rotation pairs its halves")
        if head_dim > _WIDEST:
            raise ValueError(f"head_dim={head_dim}: heads are at most {_WIDEST} wide")
        width = self._call["cache_width"](head_dim)
        keys = torch.empty(blocks, heads, width, block_size, dtype=dtype)
        values = torch.empty(blocks, heads, block_size, width, dtype=dtype)
        for kept in (keys, values):
            self._call["large_pages"](kept.data_ptr(), kept.nbytes)
            kept.zero_()
        return keys, values

    def rope_store(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        positions: torch.Tensor,
        cos_sin: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        slots: torch.Tensor,
    ) -> None:
        """Rotates `q` in place; stores rotated `k`, and `v`, into the cache.

        Args:
            q, k, v: (T, N, D); rows may be strided, as views of one wider buffer are.
            positions: (T,) int32.
            cos_sin: (P, D): cosines of the D/2 angles of a position, then their sines.
            keys, values: from `new_cache`.
            slots: (T,) int64; token t lies at place `slots[t] % 16` of block `slots[t] // 16`.
        """
        count, heads, width = q.shape
        shape = (count, heads, width)
        blocks = self._cache_blocks(keys, values, heads, width)
        spots = checked("slots", slots, (count,), torch.int64)
        places = checked("positions", positions, (count,), torch.int32)
        table = checked("cos_sin", cos_sin, (None, width), torch.float32)
        fault = self._call["rope_store"](
            self.pool.handle,
            checked("q", q, shape, torch.float32, strided=True),
            q.stride(0),
            checked("k", k, shape, torch.float32, strided=True),
            k.stride(0),
            checked("v", v, shape, torch.float32, strided=True),
            v.stride(0),
            places,
            table,
            cos_sin.shape[0],
            count,
            heads,
            width,
            _CACHE_DTYPES.index(keys.dtype),
            keys.data_ptr(),
            values.data_ptr(),
            blocks,
            spots,
        )
        if fault == 1:
            raise ValueError(f"positions lie outside 0..{cos_sin.shape[0] - 1}, cos_sin's rows")
        if fault:
            raise ValueError(f"slots names tokens outside 0..{blocks * BLOCK_SIZE - 1}")

    def attend(
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        starts: torch.Tensor,
        contexts: torch.Tensor,
        tables: torch.Tensor,
        out: torch.Tensor,
        *,
        scale: float,
    ) -> None:
        """Causal attention of each sequence's new rows over its cached tokens, theirs included.

        Args:
            q: (T, N, D); rows may be strided.
            keys, values: from `new_cache`, holding the new rows too.
            starts: (R + 1,) int32; sequence r owns rows `starts[r]` to `starts[r + 1]`, which are
                its last tokens.
            contexts: (R,) int32, tokens of each sequence so far, the new ones among them.
            tables: (R, blocks of the longest) int32, the blocks of each sequence in order.
            out: (T, N * D), written.
            scale: of the scores.
        """
        count, heads, width = q.shape
        sequences, longest = tables.shape
        blocks = self._cache_blocks(keys, values, heads, width)
        begin = checked("starts", starts, (sequences + 1,), torch.int32)
        lengths = checked("contexts", contexts, (sequences,), torch.int32)
        table = checked("tables", tables, (sequences, longest), torch.int32)
        fault = self._call["attend"](
            self.pool.handle,
            checked("q", q, (count, heads, width), torch.float32, strided=True),
            q.stride(0),
            count,
            keys.data_ptr(),
            values.data_ptr(),
            _CACHE_DTYPES.index(keys.dtype),
            blocks,
            begin,
            lengths,
            table,
            sequences,
            longest,
            heads,
            width,
            checked("out", out, (count, heads * width), torch.float32),
            scale,
        )
        if fault == 1:
            raise ValueError(f"starts={starts.tolist()} must rise from 0 to the {count} rows of q")
        if fault == 2:
            raise ValueError(
                f"contexts={contexts.tolist()} must count at least each sequence's own rows and "
                f"at most the {longest * BLOCK_SIZE} tokens of a row of tables"
            )
        if fault:
            raise ValueError(f"tables names blocks outside 0..{blocks - 1} within a context")

    def _cache_blocks(
        self, keys: torch.Tensor, values: torch.Tensor, heads: int, head_dim: int
    ) -> int:
        """The number of blocks of a cache that fits."""
        if keys.dtype not in _CACHE_DTYPES:
            raise ValueError(f"keys are {keys.dtype}; a cache is one of {_CACHE_DTYPES}")
        blocks = keys.shape[0]
        width = self._call["cache_width"](head_dim)
        checked("keys", keys, (blocks, heads, width, BLOCK_SIZE), keys.dtype)
        checked("values", values, (blocks, heads, BLOCK_SIZE, width), keys.dtype)
        return blocks
