from __future__ import annotations

import random
from dataclasses import fields

import torch

from fastchat.engine.base import GenerationRequest
from fastchat.engine.batching.blocks import BlockPool
from fastchat.engine.batching.scheduler import Limits, Scheduler, Work
from fastchat.engine.batching.sequence import Sequence
from fastchat.engine.batching.step import Layout, lay_out

BLOCK = 4


def steps(sizes, adapters, new):
    """The works of steps in which sequences generate, and the pool's size."""
    pool = BlockPool(200, BLOCK)
    scheduler = Scheduler(pool, Limits())
    for number, (size, adapter) in enumerate(zip(sizes, adapters, strict=True)):
        ids = [10 * number + place for place in range(size)]
        scheduler.add(Sequence(GenerationRequest(ids), number, list(ids), adapter=adapter))
    for _ in range(new):
        works = scheduler.plan()
        yield works, pool.count
        for work in works:
            scheduler.computed(work, 0)
            work.sequence.tokens.append(7)


def part(layout: Layout, count: int) -> Layout:
    """What is left without the last sequence, which has two tokens."""
    step = layout.step
    own = {each.name: getattr(step, each.name) for each in fields(step)}
    for name in ("token_ids", "positions", "previous", "slots"):
        own[name] = own[name][:count]
    for name in ("state_rows", "state_places", "logit_rows"):
        own[name] = own[name][:count]
    own |= {"starts": step.starts[: count + 1], "contexts": step.contexts[:count]}
    own |= {"tables": step.tables[:count], "sizes": step.sizes[:count]}
    if step.adapters is not None:
        own["adapters"] = step.adapters[:count]
    return Layout(type(step)(**own), layout.logits[:count], layout.scratch[:count])


def test_a_step_of_single_tokens_is_laid_out_like_any_other():
    rng = random.Random(5)
    for adapters in ([-1] * 6, [0, -1, 2, 2, -1, 1]):
        sizes = [rng.randrange(1, 14) for _ in adapters]
        for number, (works, scratch) in enumerate(steps(sizes, adapters, 12)):
            if number == 0:
                continue  # prompts
            assert all(work.count == 1 for work in works)
            tokens = [1, 2]
            extra = Sequence(GenerationRequest(tokens), 99, tokens, adapter=adapters[-1])
            wide = lay_out([*works, Work(extra, 2)], BLOCK, scratch)
            want, got = part(wide, len(works)), lay_out(works, BLOCK, scratch)
            assert got.logits == want.logits
            assert got.scratch == want.scratch
            for each in fields(got.step):
                one, other = getattr(got.step, each.name), getattr(want.step, each.name)
                if isinstance(one, torch.Tensor):
                    assert one.dtype == other.dtype, each.name
                    assert torch.equal(one, other), each.name
                else:
                    assert one == other, each.name
