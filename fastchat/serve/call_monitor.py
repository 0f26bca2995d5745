"""Reads from the chat logs who called which model how often.

    uvicorn fastchat.serve.call_monitor:app --port 9090

Reads `$LOGDIR/*-conv.json`, changes nothing but its own limits, and enforces none: the API
server's keys have limits of their own.
"""

from __future__ import annotations

import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastchat.constants import LOGDIR

if TYPE_CHECKING:
    from fastapi import FastAPI

_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S


class CallLog:
    """The chats of the last day, by model and by whoever asked.

    Args:
        folder: where the logs are.
        now: seconds since the epoch.
    """

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._now = now
        self.limits: dict[str, int] = {}

    def calls(self, within_s: float) -> Iterator[tuple[str, str]]:
        """The model and the user of each chat since so many seconds ago."""
        since = self._now() - within_s
        for file in sorted(self._folder.glob("*-conv.json"))[-3:]:
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # a line that is being written
                if entry.get("type") == "chat" and entry.get("tstamp", 0) >= since:
                    yield str(entry.get("model", "")), str(entry.get("ip", ""))

    def users(self, within_s: float) -> int:
        """How many users asked."""
        return len({user for _, user in self.calls(within_s)})

    def by_user(self) -> dict[str, dict[str, int]]:
        """Calls of the last day: by user, by model."""
        found: dict[str, Counter[str]] = {}
        for model, user in self.calls(_DAY_S):
            found.setdefault(user, Counter())[model] += 1
        return {user: dict(models) for user, models in found.items()}

    def by_model(self) -> dict[str, int]:
        """Calls of the last day by model."""
        return dict(Counter(model for model, _ in self.calls(_DAY_S)))

    def reached(self, model: str, user: str) -> tuple[bool, str]:
        """Whether a user has called a model as often as its limit for a day says, and why."""
        limit = self.limits.get(model)
        if limit is None:
            return False, ""
        made = sum(1 for call in self.calls(_DAY_S) if call == (model, user))
        return made >= limit, f"{made} of {limit} calls of {model} within a day"


def create_call_monitor(log: CallLog) -> FastAPI:
    """The monitor as an ASGI application."""
    from fastapi import FastAPI

    app = FastAPI(title="FastChat call monitor", docs_url=None, redoc_url=None)

    @app.get("/get_model_call_limit/{model:path}")
    def limit_of(model: str) -> dict[str, Any]:
        return {"model_call_limit": {model: log.limits.get(model, -1)}}

    @app.post("/update_model_call_limit/{model:path}/{limit}")
    def set_limit(model: str, limit: int) -> dict[str, Any]:
        log.limits[model] = limit
        return {"message": f"The limit of {model} is {limit} calls a day."}

    @app.get("/is_limit_reached")
    def is_limit_reached(model: str, user_id: str) -> dict[str, Any]:
        reached, reason = log.reached(model, user_id)
        return {"is_limit_reached": reached, "reason": reason}

    @app.get("/get_num_users_hr")
    def users_of_an_hour() -> dict[str, int]:
        return {"num_users": log.users(_HOUR_S)}

    @app.get("/get_num_users_day")
    def users_of_a_day() -> dict[str, int]:
        return {"num_users": log.users(_DAY_S)}

    @app.get("/get_user_call_stats")
    def by_user() -> dict[str, Any]:
        return {"user_call_stats": log.by_user()}

    @app.get("/get_model_call_stats")
    def by_model() -> dict[str, Any]:
        return {"model_call_stats": log.by_model()}

    return app


@functools.cache
def _app() -> FastAPI:
    return create_call_monitor(CallLog(Path(LOGDIR or ".")))


def __getattr__(name: str) -> Any:
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
