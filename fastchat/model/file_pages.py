"""Memory behind weight files that are mapped: given back as soon as it was read."""

from __future__ import annotations

import ctypes
import mmap

from torch import Tensor

_MADV_DONTNEED = 4


def forget_pages(weight: Tensor) -> None:
    """Gives back the memory behind a tensor; reading it again reads the file.

    Args:
        weight: as `WeightFiles.read` gives it: a view of a mapped file. Of any other tensor
            the content would be lost.
    """
    page = mmap.PAGESIZE
    start = -(-weight.data_ptr() // page) * page  # whole pages only: their ends hold neighbours
    size = (weight.data_ptr() + weight.nbytes - start) // page * page
    if size > 0:
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_DONTNEED)
