"""The text of files that go into a prompt."""

from __future__ import annotations

from pathlib import Path

from fastchat.errors import DataError

SUFFIXES = (".txt", ".md", ".pdf")
_MOST_BYTES = 10 * 2**20


def read_text(path: Path) -> str:
    """The text of a file: plain or Markdown in UTF-8 or GB18030, or the text in a PDF.

    Raises:
        DataError: another kind of file, a file without text, or one larger than 10 MiB.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path.name} is not one of {', '.join(SUFFIXES)}.")
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise DataError(f"{path.name} has {size} bytes; {_MOST_BYTES} are the most.")
    text = _pdf_text(path) if path.suffix.lower() == ".pdf" else _decoded(path)
    if not text.strip():
        raise DataError(f"{path.name} holds no text.")
    return text.strip()


def with_files(text: str, files: list[tuple[str, str]]) -> str:
    """A message with the contents of files, each under its name, before what was typed."""
    parts = []
    for name, content in files:
        fence = "```"
        while fence in content:
            fence += "`"
        parts.append(f"{name}\n{fence}\n{content}\n{fence}")
    return "\n\n".join([*parts, text] if text.strip() else parts)


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise DataError(f"{path.name} is no text in UTF-8 or GB18030.")


def _pdf_text(path: Path) -> str:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        return "\n\n".join(page.extract_text() for page in PdfReader(path).pages)
    except (PyPdfError, ValueError, KeyError) as error:
        raise DataError(f"{path.name} is no PDF that can be read: {error}.") from error
