"""Writes JSON files whole or not at all. Knows nothing of what the values mean.

A file appears under its name only when it is complete; until then, and for good if writing
fails, what stood there before stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from fastchat.data.json_values import LINE_SUFFIXES
from fastchat.errors import DataError, SettingsError


def write_items(path: str | Path, items: Iterable[Any]) -> int:
    """Writes items one by one, as JSON Lines under such a name and as an indented list else.

    The items may come from the very file that is written.

    Returns:
        How many there were.

    Raises:
        SettingsError: the path cannot be written to.
        DataError: writing failed, on a full disk for instance.
    """
    path = Path(path)
    lines = path.suffix.lower() in LINE_SUFFIXES
    with _whole_file(path) as file:
        return _write_lines(file, items) if lines else _write_list(file, items)


def write_json(path: str | Path, value: Any) -> None:
    """Writes one JSON value, indented.

    Raises:
        SettingsError: the path cannot be written to.
        DataError: writing failed, on a full disk for instance.
    """
    with _whole_file(Path(path)) as file:
        file.write(_dumps(value, indent=2) + "\n")


def check_out_file(path: str | Path) -> None:
    """Checks a path before work is put into what is to be written there.

    Raises:
        SettingsError: it names no file in a folder that exists, or one of another format.
    """
    path = Path(path)
    if path.suffix.lower() in (".parquet", ".pq"):
        raise SettingsError(
            f"{path} cannot be written: the output is JSON.",
            hint="Let the name end in .json, or in .jsonl for one value a line.",
        )
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise SettingsError(f"{path} cannot be written: it is {what}.", hint="Name a file.")
    if not path.parent.is_dir():
        raise SettingsError(
            f"{path} cannot be written: there is no folder {path.parent}.", hint="Make it first."
        )


def _write_lines(file: TextIO, items: Iterable[Any]) -> int:
    count = 0
    for item in items:
        file.write(_dumps(item, indent=None) + "\n")
        count += 1
    return count


def _write_list(file: TextIO, items: Iterable[Any]) -> int:
    count = 0
    for item in items:
        # Only JSON's own line breaks are raw ones; those in strings are escaped.
        text = _dumps(item, indent=2).replace("\n", "\n  ")
        file.write(("[\n  " if count == 0 else ",\n  ") + text)
        count += 1
    file.write("\n]\n" if count else "[]\n")
    return count


def _dumps(value: Any, *, indent: int | None) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # half a character, which only an escape can hold
            return json.dumps(value, indent=indent, default=_plain)
    return text


def _plain(value: Any) -> str:
    """What JSON writes for a value that only Parquet knows: a date or a decimal number."""
    if isinstance(value, bytes):
        raise DataError(
            "A field holds bytes, which JSON cannot.", hint="Leave that column out of the file."
        )
    return str(value)


@contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that takes its name when the block ends well, and goes away otherwise."""
    check_out_file(path)
    target = path.resolve()  # behind a link the file is replaced, not the link
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise DataError(
            f"{path} could not be written: {error.strerror or error}.",
            hint="What stood there before is unchanged.",
        ) from error
    finally:
        part.unlink(missing_ok=True)
