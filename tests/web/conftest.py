"""The servers of `tests/serve`, for the page too."""

from tests.serve.conftest import _shared_stack, make_stack, stack

__all__ = ["_shared_stack", "make_stack", "stack"]
