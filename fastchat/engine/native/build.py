"""Compiles the C++ files of this folder into one library, once for each machine and version.

The library lies in the cache folder under a key made of the sources, the compiler, its flags and
the processor, so one that is found always fits. Knows nothing of what the files compute.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fastchat.cache_folder import cache_folder, locked, writable
from fastchat.errors import FastChatError

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).parent
FLAGS = (
    "-std=c++20",
    "-O3",
    "-march=native",
    # A product and a sum become one operation only where the source says so: the same row must
    # give the same bits in every kernel that may compute it.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=default",
    "-fPIC",
    "-pthread",
    "-Wall",
    "-Wno-psabi",
)
_COMPILERS = ("g++", "clang++", "c++")
_COMPILE_TIMEOUT_S = 300


class NativeUnavailableError(FastChatError):
    """The compiled kernels cannot be used here; torch's own operations can."""


def build(*, folder: Path | None = None, defines: Sequence[str] = ()) -> Path:
    """The compiled library; compiles it if it is not in the cache.

    Args:
        folder: where libraries are kept; `$FASTCHAT_CACHE/native` or
            `~/.cache/fastchat/native` if None, a temporary one if that cannot be written to.
        defines: preprocessor names to set, as `NAME=value`.

    Raises:
        NativeUnavailableError: no compiler, or it refuses the sources.
    """
    compiler = find_compiler()
    flags = [*FLAGS, *(f"-D{define}" for define in defines)]
    folder = writable(cache_folder() / "native" if folder is None else folder, "compiled kernels")
    path = folder / f"kernels-{_key(compiler, flags)}.so"
    if not path.exists():
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                _compile(compiler, flags, path)
                logger.info("native kernels were compiled into %s", path)
    return path


def find_compiler() -> list[str]:
    """The C++ compiler's command: `$CXX`, else the first of g++, clang++ and c++ on the path.

    Raises:
        NativeUnavailableError: there is none.
    """
    named = os.environ.get("CXX")
    command = (
        shlex.split(named) if named else next(([c] for c in _COMPILERS if shutil.which(c)), [])
    )
    if command and shutil.which(command[0]):
        return command
    raise NativeUnavailableError(
        f"CXX={named} names no program"
        if named
        else f"no C++ compiler is on the path (none of {', '.join(_COMPILERS)})",
        hint="Install g++ (Debian: apt install g++), or set CXX.",
    )


def _key(compiler: Sequence[str], flags: Sequence[str]) -> str:
    state = hashlib.blake2b(digest_size=12)
    for part in (_version(compiler), " ".join(flags), _processor()):
        state.update(part.encode() + b"\0")
    for source in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")]):
        state.update(source.name.encode() + b"\0" + source.read_bytes())
    return state.hexdigest()


def _version(compiler: Sequence[str]) -> str:
    return _run([*compiler, "--version"]) + " ".join(compiler)


def _processor() -> str:
    """What `-march=native` looks at: one processor's lines, without its changing clock."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return " ".join(os.uname())
    kept = ("model", "cpu family", "stepping", "flags", "Features", "CPU part")
    return "\n".join(line for line in first.splitlines() if line.startswith(kept))


def _compile(compiler: Sequence[str], flags: Sequence[str], path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        jobs = [
            (source, Path(scratch) / f"{source.stem}.o") for source in sorted(SOURCES.glob("*.cpp"))
        ]
        commands = [[*compiler, *flags, "-c", str(s), "-o", str(o)] for s, o in jobs]
        _run_all(commands)
        linked = Path(scratch) / path.name
        _run([*compiler, "-shared", "-pthread", *(str(o) for _, o in jobs), "-o", str(linked)])
        linked.replace(path)


def _run_all(commands: Sequence[Sequence[str]]) -> None:
    """Runs the commands at once; the compiler is one thread each."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        list(threads.map(_run, commands))


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            command,
            check=True,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMPILE_TIMEOUT_S,
            env=os.environ | {"LC_ALL": "C"},
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip()[-2000:]
        raise NativeUnavailableError(
            f"{shlex.join(command)} ended with status {error.returncode}: {said}",
            hint="Set CXX to another compiler, for instance g++ 11 or later.",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeUnavailableError(f"{shlex.join(command)} did not run: {error}") from error
    return done.stdout
