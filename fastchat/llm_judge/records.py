"""Files of JSON Lines that grow record by record and survive whatever ends the process.

A record is in the file whole or not at all; several processes may append to one file. Knows
nothing of what the records mean.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastchat.errors import DataError, SettingsError

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """The records of a file, in its order; none if there is no file.

    What a killed process left of its last line is no record.

    Raises:
        DataError: another line is no JSON object; names it.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    lines = data[: _whole(data)].split(b"\n")
    return [_record(path, number, line) for number, line in enumerate(lines, start=1) if line]


def append_record(path: Path, record: Record) -> None:
    """Adds a record; it is on the disk when this returns.

    Raises:
        SettingsError: the file cannot be written to.
    """
    with _locked(path) as file:
        _end_well(file)
        os.lseek(file, 0, os.SEEK_END)
        _write_all(file, _line(record))
        os.fsync(file)


def settle(path: Path, key: Callable[[Record], Hashable], order: Callable[[Record], Any]) -> None:
    """Sorts a file and keeps the last record of each key; the file is never half written.

    Raises:
        DataError: a line is no JSON object.
        SettingsError: the file cannot be written to.
    """
    with _locked(path) as file:
        _end_well(file)
        last = {key(record): record for record in read_records(path)}
        text = b"".join(map(_line, sorted(last.values(), key=order)))
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as whole:
                whole.write(text)
                whole.flush()
                os.fsync(whole.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _line(record: Record) -> bytes:
    text = json.dumps(record, ensure_ascii=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half a character, which only an escape can hold
        return json.dumps(record).encode() + b"\n"


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}, is no JSON: {error}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}, line {number}, is no JSON object: {line[:80]!r}.")
    return value


def _end_well(file: int) -> None:
    """Makes a file end with a whole line; what was left of a broken one goes away."""
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return
    end = _whole(_read_all(file))
    os.ftruncate(file, end)
    if end == size:
        os.lseek(file, 0, os.SEEK_END)
        _write_all(file, b"\n")


def _whole(data: bytes) -> int:
    """Where the last whole record ends."""
    start = data.rfind(b"\n") + 1
    try:
        json.loads(data[start:])
    except ValueError:
        return start
    return len(data)  # a file that somebody wrote without a last line break


def _read_all(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    parts = []
    while part := os.read(file, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file's descriptor, with no other process at work on it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _lock(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written to: {error.strerror}.") from error
    try:
        yield file
    except OSError as error:
        raise SettingsError(f"{path} could not be written to: {error.strerror}.") from error
    finally:
        os.close(file)


def _lock(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except FileNotFoundError:
            pass
        os.close(file)  # the file was settled meanwhile: this is the old one
