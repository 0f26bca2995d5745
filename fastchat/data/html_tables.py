"""An HTML table as a Markdown table; pure. Knows nothing of what is in its cells."""

from __future__ import annotations

from collections.abc import Callable

from fastchat.data.html_tree import Element


def table_markdown(table: Element, cell_text: Callable[[Element], str]) -> str:
    """The rows of a table, the first of them as its head; short rows are filled up.

    Args:
        table: the element.
        cell_text: a cell's content on one line.
    """
    rows = [
        [cell_text(cell).replace("|", "\\|") for cell in _cells(row)]
        for row in table.find_all("tr")
    ]
    rows = [row for row in rows if row]
    width = max(map(len, rows), default=0)
    lines = ["| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in rows]
    return "\n".join([*lines[:1], "|" + " --- |" * width, *lines[1:]]) if lines else ""


def _cells(row: Element) -> list[Element]:
    return [
        child for child in row.children if isinstance(child, Element) and child.tag in ("td", "th")
    ]
