"""What the demo model reads: the bundled conversations, the prose, and documents made of both.

Two kinds of text come out of here. Fine-tuning needs `Exchange`s: what was said so far, and
the answer to it. Pretraining needs documents, in which a bundled question is never followed
by its answer, so that the base model knows the languages but not the answers.

Pure functions over package data: knows nothing of tokens, models, templates or training,
and imports nothing but the standard library and the error tree.

    python -c "from fastchat.demo.corpus import load_conversations as c; print(c()[0])"
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from fastchat.errors import DataError

CONVERSATIONS_FILE = "dummy_conversation.json"
PROSE_FILE = "prose.txt"

ROLES = ("human", "gpt")
"""Who speaks at even and at odd turns."""

DEFAULT_ARITHMETIC_COUNT = 300

_ZH_DIGITS = "零一二三四五六七八九"
_EN_BELOW_TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_EN_TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_EN_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@dataclass(frozen=True)
class Exchange:
    """One answer and all that was said before it; `context` ends with the question."""

    context: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class BundledConversation:
    """A conversation of the bundled file; the human speaks first and the turns alternate."""

    id: str
    turns: tuple[str, ...]

    @property
    def questions(self) -> tuple[str, ...]:
        """What the human says, in order."""
        return self.turns[::2]

    @property
    def answers(self) -> tuple[str, ...]:
        """What the assistant says, in order."""
        return self.turns[1::2]

    def exchanges(self) -> Iterator[Exchange]:
        """Each answer with its full history, in the order of the conversation."""
        for index in range(1, len(self.turns), 2):
            yield Exchange(context=self.turns[:index], answer=self.turns[index])


def data_path(name: str) -> Traversable:
    """A file of the bundled data, wherever the package is installed."""
    return resources.files("fastchat.demo") / "data" / name


def load_conversations() -> list[BundledConversation]:
    """The bundled conversations, in the order of the file."""
    return parse_conversations(data_path(CONVERSATIONS_FILE).read_text("utf-8"))


def load_prose() -> list[str]:
    """The paragraphs of the bundled prose."""
    return data_path(PROSE_FILE).read_text("utf-8").splitlines()


def parse_conversations(text: str) -> list[BundledConversation]:
    """Read ShareGPT JSON strictly: a bundled file has no reason to hold odd items.

    Raises:
        DataError: an item does not alternate human and gpt, or ends with a question.
    """
    return [_parse_item(item) for item in json.loads(text)]


def _parse_item(item: dict[str, Any]) -> BundledConversation:
    turns = item["conversations"]
    spoken = [turn["from"] for turn in turns]
    expected = [ROLES[index % 2] for index in range(len(turns))]
    if not turns or len(turns) % 2 or spoken != expected:
        raise DataError(
            f"conversation {item['id']!r} has the roles {spoken}; allowed are human and gpt "
            "in turn, beginning with human and ending with gpt."
        )
    return BundledConversation(id=item["id"], turns=tuple(turn["value"] for turn in turns))


def unique_exchanges(conversations: Sequence[BundledConversation]) -> list[Exchange]:
    """Every history once: conversations may begin with the same words and then part."""
    found = (exchange for item in conversations for exchange in item.exchanges())
    return list(dict.fromkeys(found))


def unique_texts(conversations: Sequence[BundledConversation]) -> list[str]:
    """Every question, then every answer, each text once; never joined to one another."""
    questions = (text for item in conversations for text in item.questions)
    answers = (text for item in conversations for text in item.answers)
    return list(dict.fromkeys([*questions, *answers]))


def pretraining_documents(
    seed: int, *, arithmetic_count: int = DEFAULT_ARITHMETIC_COUNT
) -> list[str]:
    """All documents of one pass over the pretraining corpus, in an order given by `seed`.

    Prose paragraphs, the questions and the answers of the conversations as documents of
    their own, and `arithmetic_count` different arithmetic statements drawn by `seed`.

    Raises:
        DataError: more statements are asked for than there are.
    """
    statements = arithmetic_statements()
    if not 0 <= arithmetic_count <= len(statements):
        raise DataError(
            f"arithmetic_count is {arithmetic_count}; allowed are 0 to {len(statements)}."
        )
    rng = random.Random(seed)
    documents = load_prose() + unique_texts(load_conversations())
    documents += rng.sample(statements, arithmetic_count)
    rng.shuffle(documents)
    return documents


def arithmetic_statements() -> list[str]:
    """True statements about small numbers: in digits, in English and in Chinese words."""
    statements: list[str] = []
    for a in range(1, 13):
        for b in range(1, 13):
            statements += _statements(a, "+", b, a + b)
            statements += _statements(a + b, "-", b, a)
            if a < 10 and b < 10:
                statements += _statements(a, "x", b, a * b)
    return statements


_OPERATOR_WORDS = {"+": ("plus", "加"), "-": ("minus", "减"), "x": ("times", "乘")}


def _statements(left: int, operator: str, right: int, result: int) -> list[str]:
    english, chinese = _OPERATOR_WORDS[operator]
    a, b, c = (english_number(value) for value in (left, right, result))
    x, y, z = (chinese_number(value) for value in (left, right, result))
    return [
        f"{left} {operator} {right} = {result}",
        f"{a.capitalize()} {english} {b} is {c}.",
        f"{x}{chinese}{y}等于{z}。",
    ]


def english_number(value: int) -> str:
    """0 to 99 in English words."""
    _require_two_digits(value)
    tens, unit = divmod(value, 10)
    if tens == 0:
        return _EN_BELOW_TEN[unit]
    if tens == 1:
        return _EN_TEENS[unit]
    return f"{_EN_TENS[tens]}-{_EN_BELOW_TEN[unit]}" if unit else _EN_TENS[tens]


def chinese_number(value: int) -> str:
    """0 to 99 in Chinese numerals."""
    _require_two_digits(value)
    tens, unit = divmod(value, 10)
    if not tens:
        return _ZH_DIGITS[unit]
    # Ten to nineteen begin with the ten itself: 十二, not 一十二.
    head = "十" if tens == 1 else f"{_ZH_DIGITS[tens]}十"
    return f"{head}{_ZH_DIGITS[unit]}" if unit else head


def _require_two_digits(value: int) -> None:
    if not 0 <= value <= 99:
        raise ValueError(f"the number is {value}; allowed are 0 to 99.")
