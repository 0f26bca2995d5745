"""Whether the kernels can be used here, found out once a process."""

from __future__ import annotations

import functools
import logging

from fastchat.engine.native.build import NativeUnavailableError

logger = logging.getLogger(__name__)


@functools.cache
def unavailable_reason() -> str | None:
    """Why the kernels cannot be used here; None if they can. The first call compiles and checks.

    Logs the reason.
    """
    from fastchat.engine.native.self_check import check

    try:
        check()
    except NativeUnavailableError as error:
        logger.warning("the engine uses torch's own operations, which are slower: %s", error)
        return str(error)
    return None
