"""What the panes of a page share: answers being written, the history, the log, limits.

Knows conversations and backends, and nothing of Gradio. Runs on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from fastchat.constants import CONVERSATION_TURN_LIMIT
from fastchat.errors import FastChatError
from fastchat.protocol.openai_api_protocol import random_id
from fastchat.serve.talking.answer import STOPPED, Question, Sampling
from fastchat.serve.talking.backend import Backend, Room, ask
from fastchat.serve.web.history import History
from fastchat.serve.web.limits import Limits
from fastchat.serve.web.log import ConversationLog
from fastchat.serve.web.thread import Message, Thread

logger = logging.getLogger(__name__)

# How often a growing answer is shown: people see no difference to more often. Where showing
# takes long or many answers grow, less often, so that showing never starves the rest.
_FRAME_S = 0.05
_LONGEST_FRAME_S = 0.5
_MARGIN = 16  # tokens that a chat template adds to a message, at most


@dataclass(slots=True)
class Session:
    """What one pane of one visitor holds.

    Attributes:
        visitor: name of the visitor's tab; an answer is stopped when it closes.
        box: name of the box whose messages the pane answers, perhaps with another pane.
        owner: whose history the conversation goes to; "" keeps it nowhere.
        person: who is counted by the limits.
        selected: id of the message that was clicked, if it is still shown.
        earlier: how many messages are shown beside the last ones.
    """

    thread: Thread
    visitor: str = ""
    box: str = ""
    owner: str = ""
    person: str = ""
    ip: str = ""
    selected: str | None = None
    earlier: int = 0
    answering: bool = False

    def open(self, thread: Thread) -> None:
        """Puts another conversation into the pane."""
        self.thread, self.selected, self.earlier = thread, None, 0


@dataclass(slots=True)
class Desk:
    """The page's work, without its looks.

    Attributes:
        clock: seconds, for durations.
        now: seconds since the epoch.
        turn_limit: questions that a conversation may have.
        behind_proxy: whether a proxy tells the visitors' addresses.
    """

    backend: Backend
    history: History
    log: ConversationLog
    limits: Limits
    clock: Callable[[], float]
    now: Callable[[], float]
    turn_limit: int = CONVERSATION_TURN_LIMIT
    behind_proxy: bool = False
    _running: dict[int, tuple[Session, asyncio.Task[None]]] = field(default_factory=dict)
    _contexts: dict[str, int] = field(default_factory=dict)

    def new_thread(self, *, system: str = "", model: str = "") -> Thread:
        """An empty conversation."""
        return Thread(new_id(), system=system, model=model, created=self.now())

    def save(self, session: Session, changed: list[str] | None = None) -> None:
        """Keeps a conversation, if it has an owner and any message."""
        if session.owner and len(session.thread):
            self.history.save(session.owner, session.thread, now=self.now(), changed=changed)

    def put_question(self, session: Session, text: str, parent: str | None) -> None:
        """Adds a question after a message; None starts the conversation anew beside the old."""
        message = Message(new_id(), parent, "user", text, created=self.now())
        session.thread.go_to(parent)
        session.thread.add(message)
        self.save(session, [message.id])

    async def answer(self, session: Session, sampling: Sampling) -> AsyncGenerator[Message, None]:
        """Adds an answer to the last question and yields it again and again as it grows.

        A failure becomes part of the answer: what came before it is kept. Closing the
        iterator stops the answer, and so does `stop`. Why it ended is known after the last
        yield, when the next question may be asked.
        """
        thread = session.thread
        request_id = random_id("req-")
        prompt = thread.prompt()
        message = Message(new_id(), thread.leaf, "assistant", "", thread.model, created=self.now())
        thread.add(message)
        session.selected = None
        session.answering = True
        news = asyncio.Event()
        writing = asyncio.create_task(
            self._write(message, prompt, sampling, request_id, thread.model, news)
        )
        writing.add_done_callback(lambda _: news.set())
        self._running[id(session)] = (session, writing)
        self.limits.begin(session.person, self.clock())
        start = self.now()
        try:
            yield message
            while not writing.done():
                await news.wait()
                news.clear()
                shown = self.clock()
                yield message
                took = (self.clock() - shown) * len(self._running)
                frame = min(_LONGEST_FRAME_S, max(_FRAME_S, took))
                await asyncio.wait((writing,), timeout=frame)
            self._close(message, writing, request_id)
            self._log(session, sampling, start)
        finally:
            await self._end(session, message, writing, request_id)

    async def _write(
        self,
        message: Message,
        prompt: list[dict[str, str]],
        sampling: Sampling,
        request_id: str,
        model: str,
        news: asyncio.Event,
    ) -> None:
        fitting = await self._fitting(sampling, model, prompt)
        question = Question(model, prompt, fitting, request_id)
        async with aclosing(ask(self.backend, question, self.clock)) as answers:
            async for answer in answers:
                message.text = answer.text
                message.stats = answer.stats()
                # Not before the end is told of why it ended: no figures under a growing answer.
                message.stats.pop("finish_reason", None)
                if answer.finish_reason is not None:
                    message.stats["ended"] = answer.finish_reason
                news.set()

    async def _fitting(
        self, sampling: Sampling, model: str, prompt: list[dict[str, str]]
    ) -> Sampling:
        """The wishes, with an answer that fits into the context beside the prompt."""
        if sampling.max_new_tokens is None:
            return sampling
        margin = _MARGIN * len(prompt)
        text = "\n".join(each["content"] for each in prompt)
        room = await self.room(model, text, sampling.max_new_tokens + margin)
        if room is None:
            return sampling
        left = room.context - room.tokens - margin
        return replace(sampling, max_new_tokens=max(1, min(sampling.max_new_tokens, left)))

    async def room(self, model: str, text: str, more: int = 0) -> Room | None:
        """How much room a text takes.

        Returns:
            None if the server cannot tell, or if it surely leaves room for `more` tokens: there
            are no more tokens than bytes, and counting them takes time before every answer.
        """
        context = self._contexts.get(model)
        if context is not None and len(text.encode()) + more < context:
            return None
        room = await self.backend.room(model, text)
        if room is not None:
            self._contexts[model] = room.context
        return room

    def is_writing(self, visitor: str, box: str) -> bool:
        """Whether an answer to a message from a box is still being written."""
        running = (session for session, _ in self._running.values())
        return any((each.visitor, each.box) == (visitor, box) for each in running)

    def _close(self, message: Message, writing: asyncio.Task[None], request_id: str) -> None:
        message.stats["request_id"] = request_id
        ended = message.stats.pop("ended", None)
        if writing.cancelled():
            message.stats["finish_reason"] = STOPPED
            return
        error = writing.exception()
        if error is None:
            message.stats["finish_reason"] = ended or "stop"
        elif isinstance(error, FastChatError):
            message.stats["error"] = str(error)
            message.stats["error_kind"] = type(error).__name__
        else:
            logger.error("Request %s failed", request_id, exc_info=error)
            message.stats["error"] = f"{type(error).__name__} in the page; its log tells more."

    async def _end(
        self, session: Session, message: Message, writing: asyncio.Task[None], request_id: str
    ) -> None:
        if not writing.done():
            writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        if "finish_reason" not in message.stats and "error" not in message.stats:
            self._close(message, writing, request_id)
        self._running.pop(id(session), None)
        self.limits.end(session.person)
        session.answering = False
        self.save(session, [message.id])

    def _log(self, session: Session, sampling: Sampling, start: float) -> None:
        params: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_new_tokens": sampling.max_new_tokens,
        }
        self.log.chat(session.thread, params, start, self.now(), session.ip)

    def stop(self, session: Session) -> None:
        """Stops the answer that is being written in a pane, if there is one."""
        found = self._running.get(id(session))
        if found is not None:
            found[1].cancel()

    def leave(self, visitor: str) -> None:
        """A visitor has closed the page."""
        for session, writing in list(self._running.values()):
            if session.visitor == visitor:
                writing.cancel()


def new_id() -> str:
    """A name that no other conversation or message has."""
    return uuid.uuid4().hex
