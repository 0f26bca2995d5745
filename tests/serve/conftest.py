"""Fixtures that start the real servers."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import pytest

from fastchat.engine.echo import Script
from tests.serve.harness import Stack, StackMaker


@contextmanager
def _running() -> Generator[StackMaker, None, None]:
    with ExitStack() as running:
        maker = StackMaker(running)
        yield maker
        maker.stop_all_soon()


@pytest.fixture
def make_stack() -> Generator[StackMaker, None, None]:
    """Starts stacks and single servers; stops them when the test ends."""
    with _running() as maker:
        yield maker


@pytest.fixture(scope="session")
def _shared_stack() -> Generator[Stack, None, None]:
    with _running() as maker:
        yield maker()


@pytest.fixture
def stack(_shared_stack: Stack) -> Stack:
    """A stack that echoes, shared by the tests that change nothing but what it remembers."""
    engine = _shared_stack.engine
    engine.requests.clear()
    engine.aborted.clear()
    engine.script = Script()
    return _shared_stack
