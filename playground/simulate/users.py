"""Conversations as users hold them: when they ask, how long questions and answers are. Pure.

Drawn beforehand from one seed, so that every way of dispatching meets the same users. Knows no
workers. Lengths are in tokens, times in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BEFORE_S = 900.0
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Habits:
    """What is drawn, and from which distribution.

    Chats in the wild: LMSYS-Chat-1M's questions have about 70 tokens in the mean and its answers
    215, over 2 turns (Zheng et al. 2023, arXiv:2309.11998, table 1); the chat service that was
    traced for Splitwise (Patel et al. 2023, arXiv:2311.18677) has prompts, histories included,
    of 1,020 tokens in the median and answers of 129. These values lie between the two: prompts
    have about 1,100 tokens in the median.

    Attributes:
        per_minute: requests of all users together.
        turns: mean of a geometric distribution.
        question: median and sigma of a log-normal distribution; answer and system alike.
        systems: system prompts that there are, asked for by Zipf's law.
        zipf: the exponent.
        without: the share of conversations without a system prompt.
        think: median and sigma of the time between an answer and the next question, log-normal.
        context: what prompt and answer may have together; a conversation ends before.
    """

    per_minute: float = 100_000.0
    turns: float = 3.5
    question: tuple[float, float] = (50.0, 1.1)
    answer: tuple[float, float] = (160.0, 0.8)
    system: tuple[float, float] = (250.0, 0.9)
    systems: int = 2_000
    zipf: float = 1.0
    without: float = 0.2
    think: tuple[float, float] = (20.0, 0.9)
    context: int = 8_192


@dataclass(frozen=True, slots=True)
class Turn:
    """One question with the answer that it will get.

    Attributes:
        think_s: between the answer before and this question.
    """

    question: int
    answer: int
    think_s: float


@dataclass(frozen=True, slots=True)
class Conversation:
    """One user's questions.

    Attributes:
        system: which system prompt; -1 is none.
        system_tokens: of it; 0 if there is none.
        turns: all of them.
        begins: the first turn that is asked within the time looked at.
        at_s: when.
    """

    number: int
    system: int
    system_tokens: int
    turns: Sequence[Turn]
    begins: int
    at_s: float

    def history(self, turn: int) -> int:
        """Tokens of questions and answers before a turn."""
        return sum(t.question + t.answer for t in self.turns[:turn])

    def names(self, turn: int) -> list[str]:
        """The names of a request's beginnings, one a message, as the API server gives them."""
        first = [f"s{self.system}"] if self.system >= 0 else []
        return first + [f"{self.number}.{message}" for message in range(2 * turn + 1)]


def _lengths(chance: np.random.Generator, of: tuple[float, float], count: int) -> list[int]:
    drawn = chance.lognormal(np.log(of[0]), of[1], count)
    return [int(value) for value in np.clip(drawn, 1, 4096)]


def conversations(habits: Habits, seconds: float, seed: int) -> list[Conversation]:
    """All conversations with questions in [0, seconds), in order of their first one there.

    Users who began before are in the midst of theirs at 0: the flow is even from the start.
    """
    chance = np.random.default_rng(seed)
    count = chance.poisson(habits.per_minute / 60 / habits.turns * (_BEFORE_S + seconds))
    starts = chance.uniform(-_BEFORE_S, seconds, count)
    turns = chance.geometric(1 / habits.turns, count)
    ends = np.cumsum(turns)
    total = int(ends[-1])
    questions = _lengths(chance, habits.question, total)
    answers = _lengths(chance, habits.answer, total)
    thinks = chance.lognormal(np.log(habits.think[0]), habits.think[1], total).tolist()
    prompts = _lengths(chance, habits.system, habits.systems)
    weights = 1 / np.arange(1, habits.systems + 1) ** habits.zipf
    systems = chance.choice(habits.systems, count, p=weights / weights.sum())
    systems[chance.uniform(size=count) < habits.without] = -1
    found = []
    for number, (start, end, many, system) in enumerate(
        zip(starts.tolist(), ends.tolist(), turns.tolist(), systems.tolist(), strict=True)
    ):
        begins, at_s = 0, start
        first = end - many
        while at_s < 0 and begins < many:
            begins += 1
            if begins < many:
                at_s += _ANSWER_S + thinks[first + begins]
        if begins == many or at_s >= seconds:
            continue
        tokens = prompts[system] if system >= 0 else 0
        own = [Turn(questions[place], answers[place], thinks[place]) for place in range(first, end)]
        whole, fitting = tokens, 0
        for turn in own:
            whole += turn.question + turn.answer
            fitting += whole <= habits.context
        if begins < fitting:
            found.append(Conversation(number, system, tokens, own[:fitting], begins, at_s))
    return sorted(found, key=lambda each: each.at_s)
