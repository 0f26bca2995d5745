"""How the page's events are connected: none is offered to other programs."""

from __future__ import annotations

from typing import Any

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
QUICK: dict[str, Any] = {**PRIVATE, "queue": False}
