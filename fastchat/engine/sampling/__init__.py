"""How tokens are picked from logits: one sampler for all requests of a step.

Knows nothing of models, caches or text.
"""

from __future__ import annotations

from fastchat.engine.sampling.batch import BatchSampler
from fastchat.engine.sampling.limits import check
from fastchat.engine.sampling.picker import Sampled, token_logprobs
from fastchat.engine.sampling.state import Row, RowState

__all__ = ["BatchSampler", "Row", "RowState", "Sampled", "check", "token_logprobs"]
