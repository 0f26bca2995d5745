"""The rows of a Parquet file as JSON-like items. Knows nothing of what they mean.

pyarrow is imported when a file is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastchat.errors import DataError, SettingsError

_BATCH = 1024  # rows


def parquet_items(path: Path) -> Iterator[dict[str, Any]]:
    """The rows one by one, each as an object with the columns' names as keys.

    Raises:
        DataError: while iterating: the file is missing, unreadable or no Parquet file.
        SettingsError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise SettingsError(
            f"{path} is a Parquet file, and pyarrow, which reads them, is not installed.",
            hint='Install the extra that brings it: pip install "fastchat-yuan2[train]".',
        ) from None
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file)
            for batch in table.iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
    except FileNotFoundError:
        raise DataError(
            f"There is no data file {path}.", hint="Check the path that was given."
        ) from None
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
