"""The loaded library and its threads: what every family of kernels binds its functions to."""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Sequence

import torch

from fastchat.engine.native.build import NativeUnavailableError, build


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels; builds them at the first call. Calls release the interpreter lock.

    Raises:
        NativeUnavailableError: no compiler, it refuses the sources, or the result does not load.
    """
    return load(str(build()))


def load(path: str) -> ctypes.CDLL:
    """Loads a compiled library.

    Raises:
        NativeUnavailableError: it does not load.
    """
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise NativeUnavailableError(f"{path} does not load: {error}") from error


class ThreadPool:
    """Threads of the library's own that share the work of one kernel at a time.

    Args:
        threads: how many, the caller's among them; at least 1.
        cdll: another library than `library()`.

    Attributes:
        handle: what kernels take as their first argument.
    """

    def __init__(self, threads: int, cdll: ctypes.CDLL | None = None) -> None:
        if threads < 1:
            raise ValueError(f"threads={threads}: at least 1 is needed")
        self.cdll = library() if cdll is None else cdll
        self.threads = threads
        new = bind(self.cdll, "fastchat_pool_new", [ctypes.c_int], ctypes.c_void_p)
        free = bind(self.cdll, "fastchat_pool_free", [ctypes.c_void_p])
        self.handle = ctypes.c_void_p(new(threads))
        self._close = weakref.finalize(self, free, self.handle)

    def close(self) -> None:
        """Ends the threads; the pool is of no use afterwards."""
        self._close()


def bind(
    cdll: ctypes.CDLL,
    name: str,
    arguments: Sequence[type],
    result: type | None = None,
) -> ctypes._NamedFuncPointer:
    """A function of the library with its types declared."""
    function = cdll[name]
    function.argtypes = list(arguments)
    function.restype = result
    return function


def checked(
    name: str,
    tensor: torch.Tensor,
    shape: Sequence[int | None],
    dtype: torch.dtype,
    *,
    strided: bool = False,
) -> int:
    """The address of a tensor that is what a kernel takes.

    Args:
        name: of the argument, for the message.
        tensor: what was given.
        shape: sizes it must have; None where any will do.
        dtype: element type it must have.
        strided: all but the first axis must be contiguous, instead of all.

    Raises:
        ValueError: it is something else.
    """
    inner = tensor[0] if strided and tensor.dim() > 1 and tensor.shape[0] else tensor
    if (
        tensor.dtype != dtype
        or tensor.dim() != len(shape)
        or any(
            want is not None and have != want
            for have, want in zip(tensor.shape, shape, strict=True)
        )
        or not inner.is_contiguous()
        or tensor.device.type != "cpu"
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(
            f"{name} is {_described(tensor)}; it must be a contiguous {dtype} tensor of shape "
            f"({wanted}) on the processor"
        )
    return tensor.data_ptr()


def _described(tensor: torch.Tensor) -> str:
    kind = "contiguous" if tensor.is_contiguous() else "strided"
    return f"a {kind} {tensor.dtype} tensor of shape {tuple(tensor.shape)} on {tensor.device}"
