"""Log-probabilities in the two forms of OpenAI's API. Pure."""

from __future__ import annotations

from typing import Any

from fastchat.protocol.worker import ChunkLogprobs


def chat_logprobs(lists: ChunkLogprobs | None, alternatives: int) -> dict[str, Any] | None:
    """A worker's parallel lists as chat answers tell them, with so many alternatives a token."""
    if lists is None:
        return None
    rows = zip(lists["tokens"], lists["token_logprobs"], lists["top_logprobs"], strict=True)
    return {
        "content": [
            {
                **_told(token, 0.0 if logprob is None else logprob),
                "top_logprobs": [_told(*item) for item in _likeliest(top, alternatives)],
            }
            for token, logprob, top in rows
        ]
    }


def _likeliest(top: dict[str, float] | None, count: int) -> list[tuple[str, float]]:
    return sorted((top or {}).items(), key=lambda item: -item[1])[:count]


def _told(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": _bytes(token)}


def _bytes(token: str) -> list[int] | None:
    return None if "\ufffd" in token else list(token.encode())


def mean_logprob(lists: ChunkLogprobs | None) -> float:
    """The mean log-probability of an answer's tokens, by which answers are ranked."""
    values = lists["token_logprobs"] if lists else []
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("-inf")
