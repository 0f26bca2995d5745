"""What vLLM's own sampler does not know: answers of a given form, and runs that may not repeat.

vLLM calls this in the process that samples. Which tokens may follow is found by the same code as in
our engine, so that an answer keeps to its form in the same way with either.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm import SamplingParams as VllmParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from fastchat.engine.base import Grammar, SamplingParams
from fastchat.engine.loading import end_token_ids
from fastchat.engine.sampling import RowState
from fastchat.engine.structured import GrammarMatcher, Grammars
from fastchat.model.model_folder import read_json
from fastchat.model.tokenizer_loading import load_tokenizer

KEY = "fastchat"


def further_wishes(params: SamplingParams, end_ids: Sequence[int]) -> dict[str, Any] | None:
    """What `FormProcessor` has to know of a request, as vLLM carries it between processes.

    Args:
        params: of the request.
        end_ids: tokens that end the answer.
    """
    if params.grammar is None and not params.no_repeat_ngram:
        return None
    return {
        KEY: {
            "grammar": params.grammar and [params.grammar.kind, params.grammar.text],
            "no_repeat_ngram": params.no_repeat_ngram,
            "min_new_tokens": params.min_new_tokens,
            "end_ids": list(end_ids),
        }
    }


def grammars_of(folder: str, tokenizer: Any, vocab_size: int) -> Grammars:
    """Compiles what answers of a model have to look like."""
    end_ids = end_token_ids(tokenizer, read_json(folder, "generation_config.json") or {})
    return Grammars(tokenizer, vocab_size, end_ids)


class FormProcessor(AdapterLogitsProcessor):
    """Rules tokens out, request by request. See vLLM's `LogitsProcessor`."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._model = vllm_config.model_config
        self._grammars: Grammars | None = None

    def is_argmax_invariant(self) -> bool:
        """The most likely token may be ruled out."""
        return False

    def new_req_logits_processor(self, params: VllmParams) -> Form | None:
        """What rules tokens out in one answer; None for a request that is free."""
        wishes = (params.extra_args or {}).get(KEY)
        return None if wishes is None else Form(wishes, self._compiler(wishes))

    def _compiler(self, wishes: Mapping[str, Any]) -> Grammars | None:
        if wishes["grammar"] is not None and self._grammars is None:
            folder = self._model.model
            self._grammars = grammars_of(
                folder, load_tokenizer(folder), self._model.get_vocab_size()
            )
        return self._grammars


class Form:
    """Rules tokens out in one answer.

    Args:
        wishes: as `further_wishes` tells them.
        grammars: compiles the grammar; needed if there is one.
    """

    def __init__(self, wishes: Mapping[str, Any], grammars: Grammars | None) -> None:
        self._params = SamplingParams(
            no_repeat_ngram=wishes["no_repeat_ngram"], min_new_tokens=wishes["min_new_tokens"]
        )
        self._end_ids = wishes["end_ids"]
        self._matcher: GrammarMatcher | None = None
        if wishes["grammar"] is not None:
            assert grammars is not None
            kind, text = wishes["grammar"]
            self._matcher = grammars.compile(Grammar(kind, text))
        self._state: RowState | None = None

    def __call__(self, prompt_ids: Sequence[int], output_ids: Sequence[int], row: Tensor) -> Tensor:
        """One row of logits (V,) with what may not follow ruled out, in place."""
        if self._state is None:
            self._state = RowState(
                self._params, prompt_ids, end_ids=self._end_ids, matcher=self._matcher
            )
        for token in output_ids[self._state.count :]:
            self._state.accept(token)
        ending = False
        if self._matcher is not None:
            words = np.empty(self._matcher.words, np.int32)
            ending = self._matcher.fill(words)
            bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: len(row)]
            row.masked_fill_(torch.from_numpy(bits == 0).to(row.device), -torch.inf)
        banned = list(self._state.edits(ending=ending).banned)
        if banned:
            row[banned] = -torch.inf
        return row
