"""vLLM as an `Engine`: requests of token ids in, our events out.

Speaks to vLLM's public asynchronous engine only. Knows nothing of HTTP or of chat templates.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from typing import Any

from vllm import AsyncLLMEngine, TokensPrompt
from vllm.exceptions import QueueOverflowError, VLLMClientError
from vllm.outputs import RequestOutput

from fastchat.engine import sampling
from fastchat.engine.answer import Answer, Vocabulary
from fastchat.engine.base import EngineStats, GenerationEvent, GenerationRequest, TokenLogprob
from fastchat.engine.room import answer_budget
from fastchat.engine.structured import GrammarMatcher, Grammars
from fastchat.errors import (
    DeadlineError,
    GenerationError,
    OverloadedError,
    RequestError,
    WorkerUnavailableError,
)
from fastchat.on_vllm.wishes import refuse_adapters, token_logprobs, vllm_params


class VllmEngine:
    """See `Engine`. All calls come from one event loop, which vLLM's own tasks run on.

    Args:
        llm: vLLM's engine.
        vocabulary: of the model.
        grammars: compiles what answers have to look like.
        context_length: prompt plus answer, in tokens, at most.
    """

    def __init__(
        self,
        llm: AsyncLLMEngine,
        vocabulary: Vocabulary,
        grammars: Grammars,
        *,
        context_length: int,
    ) -> None:
        self._llm = llm
        self._vocabulary = vocabulary
        self._grammars = grammars
        self._context_length = context_length
        self._numbers = itertools.count()
        self._running = self._waiting = 0
        self._prompt_tokens = self._generated_tokens = self._hit_tokens = 0

    @property
    def context_length(self) -> int:
        """See `Engine.context_length`."""
        return self._context_length

    def stats(self) -> EngineStats:
        """See `Engine.stats`; a request waits until its first token is there."""
        return EngineStats(
            running=self._running,
            waiting=self._waiting,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            prefix_tokens=self._prompt_tokens,
            prefix_hit_tokens=self._hit_tokens,
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Engine.generate`. A request counts as begun when its first token is there."""
        sampling.check(request.sampling, self._vocabulary.size)
        refuse_adapters(request)
        budget = answer_budget(request, self._vocabulary.size, self._context_length)
        form = request.sampling.grammar
        # vLLM keeps to it; this one says when it is complete.
        matcher = None if form is None else await asyncio.to_thread(self._grammars.compile, form)
        answer = Answer(request, self._vocabulary, budget)
        async with aclosing(self._outputs(request, answer, budget)) as outputs:
            async for output in outputs:
                for event in self._events(request, answer, matcher, output):
                    yield event
                    if event.finish_reason is not None:
                        return
        raise GenerationError("vLLM ended the request without an answer.")

    async def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:  # noqa: ARG002
        """Refuses: an engine of vLLM either generates or embeds."""
        raise RequestError(
            "Workers that run vLLM give no embeddings.",
            hint="Ask a worker of fastchat.serve.model_worker.",
            param="model",
        )

    @property
    def adapters(self) -> Sequence[str]:
        """See `Engine.adapters`; there are never any."""
        return ()

    async def load_adapter(self, name: str, folder: str) -> None:
        """Refuses: adapters of interleaved heads cannot be given to vLLM."""
        raise RequestError(
            f"The adapter {name} in {folder} cannot be loaded into vLLM.",
            hint="Merge it: python3 -m fastchat.model.apply_lora.",
        )

    async def unload_adapter(self, name: str) -> None:
        """Refuses, as there is none."""
        raise RequestError(f"No adapter named {name} is loaded; with vLLM there are none.")

    async def close(self) -> None:
        """See `Engine.close`."""
        await asyncio.to_thread(self._llm.shutdown)

    async def _outputs(
        self, request: GenerationRequest, answer: Answer, budget: int
    ) -> AsyncGenerator[RequestOutput, None]:
        """What vLLM tells of a request; closing this aborts it."""
        if self._llm.errored:
            raise WorkerUnavailableError(
                "vLLM's processes have died; this worker has to be started anew."
            )
        prompt = TokensPrompt(prompt_token_ids=list(request.prompt_ids))
        if request.cache_salt:
            prompt["cache_salt"] = request.cache_salt
        stream = self._llm.generate(
            prompt,
            vllm_params(request.sampling, self._known(answer.end_ids), budget),
            f"{request.request_id or 'request'}-{next(self._numbers)}",
            priority=request.priority,
        )
        async with aclosing(stream):
            first = await self._first(stream, request)
            answer.begin(cached_tokens=first.num_cached_tokens or 0, queued_s=0.0)
            self._prompt_tokens += len(request.prompt_ids)
            self._hit_tokens += first.num_cached_tokens or 0
            self._running += 1
            try:
                yield first
                async for output in stream:
                    yield output
            finally:
                self._running -= 1

    def _known(self, ids: Collection[int]) -> list[int]:
        """Those that the vocabulary has; vLLM's processes would not survive others."""
        return [token for token in ids if 0 <= token < self._vocabulary.size]

    async def _first(self, stream: Any, request: GenerationRequest) -> RequestOutput:
        self._waiting += 1
        try:
            return await asyncio.wait_for(anext(stream), request.deadline_s)
        except TimeoutError as error:
            raise DeadlineError(
                f"The request waited for {request.deadline_s:g} s, which is its limit, without"
                " being begun.",
                hint="Try again later, or give it more time.",
            ) from error
        except StopAsyncIteration as error:
            raise GenerationError("vLLM ended the request without an answer.") from error
        except QueueOverflowError as error:  # with --max-num-queued-reqs
            raise OverloadedError("vLLM's line is full.", hint="Try again later.") from error
        except (ValueError, VLLMClientError) as error:  # how vLLM refuses values
            raise RequestError(str(error)) from error
        finally:
            self._waiting -= 1

    def _events(
        self,
        request: GenerationRequest,
        answer: Answer,
        matcher: GrammarMatcher | None,
        output: RequestOutput,
    ) -> list[GenerationEvent]:
        """One event for each new token."""
        (new,) = output.outputs
        params, tokens = request.sampling, list(new.token_ids)
        self._generated_tokens += len(tokens)
        told = token_logprobs(tokens, new.logprobs, params.logprobs, self._vocabulary)
        prompt = self._prompt_logprobs(request, output)
        events = []
        for token, logprobs in zip(tokens, told, strict=True):
            if matcher is not None:
                matcher.accept(token)
            complete = matcher is not None and matcher.complete
            events.append(
                answer.push(token, complete=complete, logprobs=logprobs, prompt_logprobs=prompt)
            )
            prompt = ()
            if events[-1].finish_reason is not None:
                break
        return events

    def _prompt_logprobs(
        self, request: GenerationRequest, output: RequestOutput
    ) -> tuple[TokenLogprob, ...]:
        wanted = request.sampling.prompt_logprobs
        if wanted is None or not output.prompt_logprobs:
            return ()
        entries = token_logprobs(
            request.prompt_ids, output.prompt_logprobs, wanted, self._vocabulary
        )
        return tuple(entry for (entry,) in entries)
