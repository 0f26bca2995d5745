"""Complete answers, from chunks that tell everything so far or only what is new. Pure."""

from __future__ import annotations

from fastchat.protocol.worker import Chunk, ChunkLogprobs


class Gathered:
    """One answer as it comes in."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._logprobs: ChunkLogprobs | None = None
        self._last: Chunk = {"text": "", "error_code": 0}

    def add(self, chunk: Chunk) -> None:
        """Takes in the next chunk."""
        self._last = chunk
        lists = chunk.get("logprobs")
        if not chunk.get("delta"):
            self._texts, self._logprobs = [chunk["text"]], lists
            return
        self._texts.append(chunk["text"])
        if lists is None:
            return
        known = self._logprobs
        if known is None:
            self._logprobs = lists
            return
        known["text_offset"] += lists["text_offset"]
        known["tokens"] += lists["tokens"]
        known["token_logprobs"] += lists["token_logprobs"]
        known["top_logprobs"] += lists["top_logprobs"]

    def chunk(self) -> Chunk:
        """The answer, as one chunk that tells all of it."""
        whole: Chunk = {**self._last, "text": "".join(self._texts), "logprobs": self._logprobs}
        return whole
