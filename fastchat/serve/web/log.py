"""The log of chats and votes: FastChat's lines, one JSON object each, in one file a day."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from fastchat.conversation import get_conv_template
from fastchat.serve.web.thread import Thread

LogIp = Literal["none", "hash", "full"]
LOG_IP: tuple[LogIp, ...] = ("none", "hash", "full")


class ConversationLog:
    """Writes `YYYY-MM-DD-conv.json`; safe to use from several threads.

    Args:
        folder: where; None writes nothing.
        log_ip: whether a line tells the visitor's address, a hash of it that is another one
            after each start, or "".
        clock: seconds since the epoch.
    """

    def __init__(self, folder: Path | None, log_ip: LogIp, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._log_ip = log_ip
        self._clock = clock
        self._lock = threading.Lock()
        self._salt = secrets.token_bytes(16)

    def chat(
        self, thread: Thread, gen_params: dict[str, Any], start: float, finish: float, ip: str
    ) -> None:
        """An answer is complete."""
        self._write(
            type="chat",
            model=thread.model,
            gen_params=gen_params,
            start=round(start, 4),
            finish=round(finish, 4),
            state=state_of(thread),
            ip=ip,
        )

    def verdict(self, kind: Literal["upvote", "downvote", "flag"], thread: Thread, ip: str) -> None:
        """Somebody judged an answer."""
        self._write(type=kind, model=thread.model, state=state_of(thread), ip=ip)

    def vote(self, kind: str, threads: Sequence[Thread], names: Sequence[str], ip: str) -> None:
        """Somebody compared two answers.

        Args:
            kind: one of `chat_log.VOTES`.
            threads: both conversations.
            names: the models as the page showed them; empty ones in a battle.
            ip: the visitor's address.
        """
        self._write(type=kind, models=list(names), states=[state_of(t) for t in threads], ip=ip)

    def _write(self, *, type: str, ip: str, **fields: Any) -> None:  # noqa: A002 (the field)
        if self._folder is None:
            return
        now = self._clock()
        line = {"tstamp": round(now, 4), "type": type, **fields, "ip": self._shown(ip)}
        day = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y-%m-%d")
        text = json.dumps(line, ensure_ascii=False) + "\n"
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / f"{day}-conv.json").open("a", encoding="utf-8") as file:
                file.write(text)

    def _shown(self, ip: str) -> str:
        if self._log_ip == "full" or not ip:
            return ip
        if self._log_ip == "none":
            return ""
        return hashlib.blake2b(ip.encode(), key=self._salt, digest_size=8).hexdigest()


def state_of(thread: Thread) -> dict[str, Any]:
    """A conversation in the form that FastChat's logs hold."""
    conversation = get_conv_template("yuan2")
    conversation.set_system_message(thread.system)
    for message in thread.path:
        role = conversation.roles[message.role == "assistant"]
        conversation.append_message(role, message.text)
    return {**conversation.dict(), "conv_id": thread.id, "model_name": thread.model}
