"""Answers a few prompts with the model that is being trained. Imports torch when it does."""

from __future__ import annotations

from typing import Any

from fastchat.train.report.samples import Generate


def greedy_answers(
    model: Any, tokenizer: Any, *, max_new_tokens: int = 128, synced: bool = False
) -> Generate:
    """A function that answers prompts, each alone and with its likeliest tokens.

    The model is put into evaluation mode for the time, and back.

    Args:
        model: not wrapped for several processes, such as `Trainer.model`.
        tokenizer: the model's.
        max_new_tokens: an answer's longest length.
        synced: whether its weights are spread over processes, which then have to compute
            equally often.
    """
    import torch

    ending = model.generation_config.eos_token_id
    options = {
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        "use_cache": True,
        "synced_gpus": synced,
        "eos_token_id": tokenizer.eos_token_id if ending is None else ending,
        "pad_token_id": tokenizer.eos_token_id,
    }

    def answer(prompt: list[int]) -> str:
        ids = torch.tensor([prompt], device=model.device)
        output = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        text: str = tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)
        return text

    def generate(prompts: list[list[int]]) -> list[str]:
        training = model.training
        model.eval()
        try:
            return [answer(prompt) for prompt in prompts]
        finally:
            model.train(training)

    return generate
