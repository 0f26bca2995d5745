"""Writes what is left of a run to look at: loss.png and report.html."""

from __future__ import annotations

import logging
from pathlib import Path

from fastchat.train.report.files import write_atomically
from fastchat.train.report.page import RunFacts, page
from fastchat.train.report.picture import can_draw, loss_picture
from fastchat.train.report.series import History

logger = logging.getLogger(__name__)

PAGE_NAME, PICTURE_NAME = "report.html", "loss.png"


def write_report(folder: Path, history: History, facts: RunFacts) -> list[Path]:
    """Writes the report of a run into its folder; call it on the main process only.

    Args:
        folder: has to exist.
        history: what was logged, each log with its `step`.
        facts: what else there is to say.

    Returns:
        The files written. The picture is left out where matplotlib is not installed or no
        loss was logged.
    """
    written = [folder / PAGE_NAME]
    write_atomically(written[0], page(history, facts).encode("utf-8", "replace"))
    if not can_draw():
        logger.info(
            "%s is not drawn, as matplotlib is not installed (extra 'train'); %s has the curves.",
            PICTURE_NAME,
            PAGE_NAME,
        )
    elif (picture := loss_picture(history)) is not None:
        written.append(folder / PICTURE_NAME)
        write_atomically(written[1], picture)
    return written
