"""The plain engine: one sequence a request, step by step, for any causal language model.

Requests take turns at every token, so none waits for another's whole answer. Knows
nothing of HTTP or of chat templates.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import torch
from torch import Tensor

from fastchat.constants import ErrorCode
from fastchat.engine import sampling
from fastchat.engine.base import (
    EngineStats,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    TokenLogprob,
)
from fastchat.engine.stop import StopMatcher
from fastchat.errors import ContextOverflowError, FastChatError, GenerationError, RequestError
from fastchat.model.text_stream import REPLACEMENT, TextStream

_DONE = object()


class PlainEngine:
    """Generates with a transformers model.

    Args:
        model: a causal language model in eval mode.
        text_stream: makes a decoder for one answer, special tokens left out.
        token_text: the text of single tokens, for log-probabilities.
        end_ids: the model's own end tokens.
        special_ids: special tokens by their text; as stop strings they match by id.
        context_length: prompt plus answer, in tokens, at most.
        concurrency: requests that run at once; others wait.
    """

    def __init__(
        self,
        model: Any,
        *,
        text_stream: Callable[[], TextStream],
        token_text: Callable[[int], str],
        end_ids: Sequence[int],
        special_ids: Mapping[str, int],
        context_length: int,
        concurrency: int = 8,
    ) -> None:
        self._model = model
        self._text_stream = text_stream
        self._token_text = token_text
        self._end_ids = frozenset(end_ids)
        self._special_ids = special_ids
        self._context_length = context_length
        self._vocab_size: int = model.config.vocab_size
        self._step = threading.Lock()
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="generate")
        self._limit = asyncio.Semaphore(concurrency)
        self._running = self._waiting = 0

    @property
    def context_length(self) -> int:
        """See `Engine.context_length`."""
        return self._context_length

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return EngineStats(running=self._running, waiting=self._waiting)

    async def close(self) -> None:
        """See `Engine.close`."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Engine.generate`."""
        budget = self._budget(request)
        self._waiting += 1
        try:
            await self._limit.acquire()
        finally:
            self._waiting -= 1
        self._running += 1
        try:
            async with aclosing(self._in_thread(request, budget)) as events:
                async for event in events:
                    yield event
        finally:
            self._running -= 1
            self._limit.release()

    async def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `Engine.embed`."""
        for row in batch:
            if not row:
                raise RequestError("An input to embed is empty.", param="input")
            if len(row) > self._context_length:
                raise ContextOverflowError(
                    f"An input of {len(row)} tokens exceeds the context of"
                    f" {self._context_length} tokens.",
                    param="input",
                )
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._threads, self._embed, row) for row in batch]

    def _budget(self, request: GenerationRequest) -> int:
        """Tokens that may be generated."""
        sampling.check(request.sampling, self._vocab_size)
        size, wanted = len(request.prompt_ids), request.sampling.max_new_tokens
        if not size:
            raise RequestError("The prompt is empty; at least one token is needed.")
        room = self._context_length - size
        if room < 1:
            raise ContextOverflowError(
                f"The prompt has {size} tokens, but the model's context is"
                f" {self._context_length} tokens, answer included.",
                hint="Shorten the prompt.",
            )
        if wanted is not None and wanted > room:
            raise ContextOverflowError(
                f"The prompt has {size} tokens and {wanted} were asked for, but the model's"
                f" context is {self._context_length} tokens.",
                hint=f"Ask for at most {room} tokens, or shorten the prompt.",
                param="max_tokens",
            )
        return room if wanted is None else wanted

    async def _in_thread(
        self, request: GenerationRequest, budget: int
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Runs `_events` in a thread and hands its events over; closing it stops the thread."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        cancelled = threading.Event()

        def run() -> None:
            outcome: object = _DONE
            try:
                for event in self._events(request, budget):
                    if cancelled.is_set():
                        return
                    loop.call_soon_threadsafe(queue.put_nowait, event)
            except FastChatError as error:
                outcome = error
            except torch.OutOfMemoryError as error:
                outcome = GenerationError(f"The device ran out of memory: {error}")
                outcome.code = ErrorCode.CUDA_OUT_OF_MEMORY
            except Exception as error:  # noqa: BLE001  (ends this request only, with its cause)
                outcome = GenerationError(f"{type(error).__name__}: {error}")
                outcome.__cause__ = error
            if not cancelled.is_set():
                loop.call_soon_threadsafe(queue.put_nowait, outcome)

        thread = loop.run_in_executor(self._threads, run)
        try:
            while (item := await queue.get()) is not _DONE:
                if isinstance(item, FastChatError):
                    raise item
                yield item
        finally:
            cancelled.set()
            await asyncio.shield(thread)

    def _events(self, request: GenerationRequest, budget: int) -> Iterator[GenerationEvent]:
        """One event per token, in the calling thread."""
        params, prompt = request.sampling, list(request.prompt_ids)
        device = self._model.device
        sampler = sampling.Sampler(params, prompt, device)
        stream = self._text_stream()
        matcher = StopMatcher([stop for stop in params.stop if stop not in self._special_ids])
        end_ids = self._end_ids_of(request)
        fed, cache, count = torch.tensor([prompt], device=device), None, 0
        finish: FinishReason | None = None
        while finish is None:
            everything = params.prompt_logprobs is not None and count == 0
            with self._step, torch.inference_mode():
                output = self._model(
                    input_ids=fed,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=0 if everything else 1,
                )
                logits = output.logits[0].float()  # (1 or prompt, V)
                token = sampler.sample(logits[-1])
            cache, fed = output.past_key_values, torch.tensor([[token]], device=device)
            count += 1
            ended = token in end_ids
            last = ended or count == budget
            piece = "" if ended else stream.push([token])
            if last:  # what was held back comes out, but for the half of a character
                piece += stream.finish().rstrip(REPLACEMENT)
            text = matcher.push(piece)
            if ended or matcher.stopped:
                finish = "stop"
            elif last:
                finish = "length"
            if finish is not None:
                text += matcher.finish()
            yield GenerationEvent(
                text=text,
                token_ids=(token,),
                prompt_tokens=len(prompt),
                completion_tokens=count,
                finish_reason=finish,
                logprobs=self._logprobs(logits[-1:], [token], params.logprobs),
                prompt_logprobs=(
                    self._prompt_logprobs(logits, prompt, params.prompt_logprobs)
                    if everything
                    else ()
                ),
            )

    def _end_ids_of(self, request: GenerationRequest) -> frozenset[int]:
        params = request.sampling
        named = {self._special_ids[stop] for stop in params.stop if stop in self._special_ids}
        chosen = frozenset(params.stop_token_ids) | named
        # Clients name the model's own end token as a matter of course.
        return chosen - self._end_ids if params.ignore_eos else chosen | self._end_ids

    def _logprobs(
        self, logits: Tensor, tokens: Sequence[int], alternatives: int | None
    ) -> tuple[TokenLogprob, ...]:
        """Of tokens (n) under logits (n, V)."""
        if alternatives is None:
            return ()
        logprobs = logits.log_softmax(dim=-1)
        best = logprobs.topk(min(alternatives, self._vocab_size), dim=-1)
        return tuple(
            TokenLogprob(
                token,
                self._token_text(token),
                float(row[token]),
                tuple(
                    (index, self._token_text(index), value)
                    for index, value in zip(indices, values, strict=True)
                ),
            )
            for token, row, indices, values in zip(
                tokens, logprobs, best.indices.tolist(), best.values.tolist(), strict=True
            )
        )

    def _prompt_logprobs(
        self, logits: Tensor, prompt: Sequence[int], alternatives: int | None
    ) -> tuple[TokenLogprob, ...]:
        """Of the prompt's tokens; the first has none."""
        first = TokenLogprob(prompt[0], self._token_text(prompt[0]), None)
        return (first, *self._logprobs(logits[:-1], prompt[1:], alternatives))

    def _embed(self, row: Sequence[int]) -> list[float]:
        with self._step, torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor([list(row)], device=self._model.device),
                use_cache=False,
                output_hidden_states=True,
                logits_to_keep=1,
            )
            mean = output.hidden_states[-1][0].float().mean(dim=0)  # (S, H) -> (H,)
            unit: list[float] = torch.nn.functional.normalize(mean, dim=0).tolist()
        return unit
