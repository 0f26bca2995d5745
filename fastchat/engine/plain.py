"""The plain engine: one sequence a request, step by step, for any causal language model.

Requests take turns at every token, so none waits for another's whole answer. Knows
nothing of HTTP or of chat templates.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import torch
from torch import Tensor

from fastchat.constants import ErrorCode
from fastchat.engine import sampling
from fastchat.engine.answer import Answer, Vocabulary
from fastchat.engine.base import (
    EngineStats,
    GenerationEvent,
    GenerationRequest,
    Grammar,
    SamplingParams,
    TokenLogprob,
)
from fastchat.engine.room import answer_budget, check_row
from fastchat.engine.sampling import BatchSampler, Row, RowState, token_logprobs
from fastchat.engine.structured import GrammarMatcher, Grammars
from fastchat.errors import FastChatError, GenerationError, RequestError

_DONE = object()


class PlainEngine:
    """Generates with a transformers model.

    Args:
        model: a causal language model in eval mode.
        vocabulary: of the model.
        context_length: prompt plus answer, in tokens, at most.
        grammars: compiles what answers have to look like; None refuses it.
        concurrency: requests that run at once; others wait.
    """

    def __init__(
        self,
        model: Any,
        vocabulary: Vocabulary,
        *,
        context_length: int,
        grammars: Grammars | None = None,
        concurrency: int = 8,
    ) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._grammars = grammars
        self._sampler = BatchSampler(vocabulary.size)
        self._context_length = context_length
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

    @property
    def adapters(self) -> Sequence[str]:
        """See `Engine.adapters`; there are never any."""
        return ()

    async def load_adapter(self, name: str, folder: str) -> None:
        """Refuses: one model is all that there is here."""
        raise RequestError(
            f"The adapter {name} in {folder} cannot be loaded beside this model.",
            hint="Serve it as a model of its own: --model-path ADAPTER.",
        )

    async def unload_adapter(self, name: str) -> None:
        """Refuses, as there is none."""
        raise _no_adapter(name)

    async def close(self) -> None:
        """See `Engine.close`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._sampler.close()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Engine.generate`."""
        sampling.check(request.sampling, self._vocabulary.size)
        if request.adapter is not None:
            raise _no_adapter(request.adapter)
        budget = answer_budget(request, self._vocabulary.size, self._context_length)
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
            check_row(row, self._vocabulary.size, self._context_length)
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._threads, self._embed, row) for row in batch]

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
        answer = Answer(request, self._vocabulary, budget)
        state = RowState(
            params, prompt, end_ids=answer.end_ids, matcher=self._matcher(params.grammar)
        )
        fed, cache, finished = torch.tensor([prompt], device=device), None, False
        while not finished:
            everything = params.prompt_logprobs is not None and cache is None
            with self._step, torch.inference_mode():
                output = self._model(
                    input_ids=fed,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=0 if everything else 1,
                )
                logits = output.logits[0].float()  # (1 or prompt, V)
                told = self._prompt_logprobs(logits, prompt, params) if everything else ()
                (sampled,) = self._sampler.sample(logits[-1:].clone(), [Row(state)])
            if sampled.error is not None:
                raise sampled.error
            cache, fed = output.past_key_values, torch.tensor([[sampled.token]], device=device)
            state.accept(sampled.token)
            event = answer.push(
                sampled.token,
                complete=state.complete,
                logprobs=self._vocabulary.logprobs(sampled),
                prompt_logprobs=told,
            )
            finished = event.finish_reason is not None
            yield event

    def _matcher(self, grammar: Grammar | None) -> GrammarMatcher | None:
        if grammar is None:
            return None
        if self._grammars is None:
            raise RequestError("This model gives no answers of a given form.", param="grammar")
        return self._grammars.compile(grammar)

    def _prompt_logprobs(
        self, logits: Tensor, prompt: Sequence[int], params: SamplingParams
    ) -> tuple[TokenLogprob, ...]:
        """Of the prompt's tokens; the first has none."""
        assert params.prompt_logprobs is not None
        found = token_logprobs(logits[:-1], prompt[1:], params.prompt_logprobs)
        named = self._vocabulary.logprob
        rest = (named(token, *each) for token, each in zip(prompt[1:], found, strict=True))
        return (named(prompt[0], None), *rest)

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


def _no_adapter(name: str) -> RequestError:
    return RequestError(f"No adapter named {name} is loaded; loaded are: none.", param="model")
