"""Where what can be made again is kept between runs. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fastchat.errors import SettingsError

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`$FASTCHAT_CACHE`, else `~/.cache/fastchat`."""
    chosen = os.environ.get("FASTCHAT_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "fastchat"


def writable(folder: Path, what: str) -> Path:
    """A folder, made if need be; a temporary one of this user's if it cannot be written to.

    Args:
        folder: that is wished for.
        what: is kept there, for the message.

    Raises:
        SettingsError: the temporary folder belongs to somebody else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        other = Path(tempfile.gettempdir()) / f"fastchat-{os.getuid()}"
        other.mkdir(mode=0o700, exist_ok=True)
        if other.stat().st_uid != os.getuid():  # what somebody else put there is not to be used
            raise SettingsError(
                f"Neither {folder} nor {other} can hold {what}.",
                hint="Set FASTCHAT_CACHE to a folder that can be written to.",
            ) from error
        logger.warning(
            "%s cannot be kept in %s (%s); %s is used. Set FASTCHAT_CACHE.",
            what,
            folder,
            error.strerror or error,
            other,
        )
        return other


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes from going on at the same place."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go of it if this process dies
        yield
