"""How a command ends: its exit status, and one line for an error. Imports nothing heavy."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from fastchat.errors import FastChatError

INTERRUPTED = 130


def run_entry(main: Callable[[], None]) -> NoReturn:
    """Runs an entry point and ends the process with its status.

    An error raised on purpose becomes one line on stderr; TERM ends the process cleanly.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        main()
    except FastChatError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)
