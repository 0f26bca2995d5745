"""One set of compiled kernels for the whole session, on one thread and on two."""

from __future__ import annotations

import pytest

from fastchat.engine.native.build import NativeUnavailableError
from fastchat.engine.native.kernels import Kernels


@pytest.fixture(scope="session")
def kernels():
    try:
        return Kernels(2)
    except NativeUnavailableError as error:
        pytest.skip(f"no compiled kernels here: {error}")


@pytest.fixture(scope="session")
def alone(kernels):
    return Kernels(1)
