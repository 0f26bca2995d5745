"""Small helpers under the names FastChat's users import.

Knows nothing of any process. Heavy imports happen inside the functions that need them.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastchat.constants import LOGDIR
from fastchat.errors import SettingsError

if TYPE_CHECKING:
    import torch

_LOG_FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"
_SHARED_LOGGERS = ("fastchat", "uvicorn")


def build_logger(logger_name: str, logger_filename: str) -> logging.Logger:
    """A logger for one process, writing to stderr and to a daily rotated file.

    The loggers of this package and of uvicorn write to the same places. Standard output
    and standard error are left as they are.

    Args:
        logger_name: shown in each line.
        logger_filename: a file in $LOGDIR; an empty name, or an empty $LOGDIR, means none.
    """
    formatter = logging.Formatter(_LOG_FORMAT, datefmt="%Y-%m-%d %H:%M:%S")
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if LOGDIR and logger_filename:
        path = Path(LOGDIR) / logger_filename
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.handlers.TimedRotatingFileHandler(
                path, when="midnight", utc=True, encoding="utf-8", delay=True
            )
        )
    for handler in handlers:
        handler.setFormatter(formatter)
    logger = logging.getLogger(logger_name)
    for each in (logger, *map(logging.getLogger, _SHARED_LOGGERS)):
        for old in each.handlers:
            old.close()
        each.handlers = list(handlers)
        each.setLevel(logging.INFO)
        each.propagate = False
    return logger


SEQUENCE_LENGTH_KEYS = (
    "max_position_embeddings",
    "max_sequence_length",
    "seq_length",
    "max_seq_len",
    "model_max_length",
)
"""Names under which model configs hold their context length; the first one found counts."""


def get_context_length(config: Any) -> int:
    """The context length, in tokens, that a model config tells; 2048 if it tells none."""
    scaling = getattr(config, "rope_scaling", None) or {}
    factor = scaling.get("factor") or 1
    for key in SEQUENCE_LENGTH_KEYS:
        length = getattr(config, key, None)
        if length is not None:
            return int(length * factor)
    return 2048


def is_partial_stop(output: str, stop_str: str) -> bool:
    """Whether the end of the output may be the beginning of the stop string."""
    longest = min(len(output), len(stop_str))
    return any(output.endswith(stop_str[:size]) for size in range(1, longest + 1))


_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！", '"', "'", "”")


def is_sentence_complete(output: str) -> bool:
    """Whether the text ends as sentences do."""
    return output.endswith(_SENTENCE_ENDS)


def parse_gradio_auth_creds(filename: str) -> list[tuple[str, str]]:
    """Reads `user:password` pairs, separated by commas or lines.

    Only the first colon separates, so a password may contain one.

    Raises:
        SettingsError: the file cannot be read, or a pair has no colon.
    """
    try:
        text = Path(filename).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"Cannot read the user file {filename}: {error.strerror}.") from error
    pairs = [pair.strip() for pair in text.replace("\n", ",").split(",") if pair.strip()]
    credentials = []
    for number, pair in enumerate(pairs, start=1):
        user, colon, password = pair.partition(":")
        if not colon:
            raise SettingsError(f"Entry {number} of {filename} is not of the form user:password.")
        credentials.append((user, password))
    return credentials


DTYPES = ("float32", "float16", "bfloat16")
"""Names of the number formats in which weights can be held."""


def str_to_torch_dtype(dtype: str | None) -> torch.dtype | None:
    """The torch dtype of a name; None for None.

    Raises:
        SettingsError: an unknown name.
    """
    if dtype is None:
        return None
    if dtype not in DTYPES:
        raise SettingsError(f"dtype is {dtype!r}; allowed are {', '.join(DTYPES)}.")
    import torch

    found: torch.dtype = getattr(torch, dtype)
    return found


def get_gpu_memory(max_gpus: int | None = None) -> list[float]:
    """Free memory of each CUDA device, in GiB."""
    import torch

    count = torch.cuda.device_count()
    used = count if max_gpus is None else min(max_gpus, count)
    return [torch.cuda.mem_get_info(index)[0] / 1024**3 for index in range(used)]


def run_cmd(cmd: str | Sequence[str]) -> int:
    """Prints and runs a command; a plain string goes through the shell. Returns its status."""
    print(cmd if isinstance(cmd, str) else " ".join(cmd))
    return subprocess.run(cmd, shell=isinstance(cmd, str), check=False).returncode  # noqa: S603


def pretty_print_semaphore(semaphore: asyncio.Semaphore | None) -> str:
    """A semaphore's state for a log line."""
    if semaphore is None:
        return "None"
    return f"Semaphore(value={semaphore._value}, locked={semaphore.locked()})"  # noqa: SLF001


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
