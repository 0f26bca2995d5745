"""Asks a judge about matches, and stores what it says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from fastchat.llm_judge.asking import Asker, Job, Messages, Outcome, run_jobs
from fastchat.llm_judge.matches import Match
from fastchat.llm_judge.records import Record, append_record
from fastchat.llm_judge.verdicts import Side, rating, winner

MAX_TOKENS = 2048
"""Tokens of a judgment at most."""


async def judge_all(
    asker: Asker, judge: str, matches: Sequence[Match], path: Path, parallel: int
) -> Outcome:
    """Judges matches, so many at once; each is stored as soon as it is complete.

    A match whose judge could not be asked is not stored.

    Raises:
        FastChatError: see `run_jobs`.
    """

    def job(match: Match) -> Job:
        async def run() -> None:
            said = [await _ask(asker, match, prompt) for prompt in match.user_prompts]
            append_record(path, _record(match, judge, said))

        return Job(match.name, run)

    return await run_jobs(list(map(job, matches)), parallel, judge)


async def _ask(asker: Asker, match: Match, user_prompt: str) -> str:
    messages: Messages = [{"role": "user", "content": user_prompt}]
    if match.prompt.system_prompt:
        messages.insert(0, {"role": "system", "content": match.prompt.system_prompt})
    return (await asker.reply(messages, temperature=0.0, seed=0)).text


def _record(match: Match, judge: str, said: Sequence[str]) -> Record:
    common = {"judge": [judge, match.prompt.name], "turn": match.turn, "tstamp": time.time()}
    if len(match.models) == 1:
        return {
            "question_id": match.question_id,
            "model": match.models[0],
            "user_prompt": match.user_prompts[0],
            "judgment": said[0],
            "score": rating(said[0]),
            **common,
        }
    first, second = (winner(text, match.prompt.output_format) for text in said)
    return {
        "question_id": match.question_id,
        "model_1": match.models[0],
        "model_2": match.models[1],
        "g1_winner": _model(first, a="model_1", b="model_2"),
        "g2_winner": _model(second, a="model_2", b="model_1"),
        "g1_user_prompt": match.user_prompts[0],
        "g1_judgment": said[0],
        "g2_user_prompt": match.user_prompts[1],
        "g2_judgment": said[1],
        **common,
    }


def _model(side: Side, *, a: str, b: str) -> str:
    return {"A": a, "B": b}.get(side, side)
