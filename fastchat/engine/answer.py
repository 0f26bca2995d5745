"""The text side of one answer: from sampled tokens to events, and when the answer ends.

Pure; knows nothing of models, caches or threads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from fastchat.engine.base import (
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    SamplingParams,
    TokenLogprob,
)
from fastchat.engine.sampling import Sampled
from fastchat.engine.stop import StopMatcher
from fastchat.model.text_stream import REPLACEMENT, TextStream


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What engines know of a model's text.

    Attributes:
        size: token ids go from 0 to size - 1.
        text_stream: makes a decoder for one answer, special tokens left out.
        token_text: the text of single tokens, for log-probabilities.
        end_ids: the model's own end tokens.
        special_ids: special tokens by their text; as stop strings they match by id.
    """

    size: int
    text_stream: Callable[[], TextStream]
    token_text: Callable[[int], str]
    end_ids: frozenset[int]
    special_ids: Mapping[str, int]

    def end_ids_of(self, params: SamplingParams) -> frozenset[int]:
        """The tokens that end a request's answer."""
        named = {self.special_ids[stop] for stop in params.stop if stop in self.special_ids}
        chosen = frozenset(params.stop_token_ids) | named
        # Clients name the model's own end token as a matter of course.
        return chosen - self.end_ids if params.ignore_eos else chosen | self.end_ids

    def logprob(
        self, token: int, logprob: float | None, top: Sequence[tuple[int, float]] = ()
    ) -> TokenLogprob:
        """A token's log-probability with the texts that belong to it."""
        named = tuple((other, self.token_text(other), value) for other, value in top)
        return TokenLogprob(token, self.token_text(token), logprob, named)

    def logprobs(self, sampled: Sampled) -> tuple[TokenLogprob, ...]:
        """Of a sampled token, if that was asked for."""
        if sampled.logprob is None:
            return ()
        return (self.logprob(sampled.token, sampled.logprob, sampled.top),)


class Answer:
    """One answer as it grows.

    Args:
        request: what was asked.
        vocabulary: of the model.
        budget: tokens that may be generated.
    """

    def __init__(self, request: GenerationRequest, vocabulary: Vocabulary, budget: int) -> None:
        params = request.sampling
        special = vocabulary.special_ids
        self.end_ids: Collection[int] = vocabulary.end_ids_of(params)
        self._prompt_tokens = len(request.prompt_ids)
        self._budget = budget
        self._minimum = params.min_new_tokens
        self._stream = vocabulary.text_stream()
        self._matcher = StopMatcher([stop for stop in params.stop if stop not in special])
        self._count = 0
        self._cached_tokens = 0
        self._queued_s = 0.0

    def begin(self, *, cached_tokens: int, queued_s: float) -> None:
        """Takes note of how the request began; see `GenerationEvent`."""
        self._cached_tokens, self._queued_s = cached_tokens, queued_s

    def push(
        self,
        token: int,
        *,
        complete: bool = False,
        logprobs: tuple[TokenLogprob, ...] = (),
        prompt_logprobs: tuple[TokenLogprob, ...] = (),
    ) -> GenerationEvent:
        """Takes a token; the event that tells of it has a finish reason if it was the last.

        Args:
            complete: nothing may follow, whatever the token is.
        """
        self._count += 1
        ended = token in self.end_ids
        last = ended or complete or self._count >= self._budget
        text = "" if ended else self._stream.push([token])
        if last:  # what was held back comes out, but for the half of a character
            text += self._stream.finish().rstrip(REPLACEMENT)
        if self._count > self._minimum:
            text = self._matcher.push(text)
        finish: FinishReason | None = None
        if ended or complete or self._matcher.stopped:
            finish = "stop"
        elif last:
            finish = "length"
        if finish is not None:
            text += self._matcher.finish()
        return GenerationEvent(
            text=text,
            token_ids=(token,),
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._count,
            cached_tokens=self._cached_tokens,
            queued_s=self._queued_s,
            finish_reason=finish,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
        )
