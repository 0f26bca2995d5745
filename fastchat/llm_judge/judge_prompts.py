"""What a judge is told: prompts from a file, filled with a question and its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastchat.errors import DataError
from fastchat.llm_judge.bench import DATA, PROMPTS, packaged
from fastchat.llm_judge.questions import Question
from fastchat.llm_judge.records import Record, read_records

Kind = Literal["single", "pairwise"]
RATING, LETTER, TWO_RATINGS = "[[rating]]", "[[A]]", "[[rating_a,rating_b]]"
_FORMATS: Mapping[Kind, tuple[str, ...]] = {
    "single": (RATING,),
    "pairwise": (LETTER, TWO_RATINGS),
}
_NAMES: Mapping[Kind, tuple[str, str]] = {
    "single": ("single-v1", "single-math-v1"),
    "pairwise": ("pair-v2", "pair-math-v1"),
}


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """One prompt.

    Attributes:
        system_prompt: the judge's system message; "" is none.
        prompt_template: the user's message, with fields in braces.
        output_format: how the judge is to say its verdict.
    """

    name: str
    type: Kind
    system_prompt: str
    prompt_template: str
    output_format: str

    def fill(self, fields: Mapping[str, str]) -> str:
        """The user's message.

        Raises:
            DataError: the template has a field that there is nothing for.
        """
        try:
            return self.prompt_template.format_map(fields)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise DataError(
                f"Judge prompt {self.name}: its template cannot be filled: {error!r}.",
                hint=f"Fields are {', '.join(sorted(fields))}; other braces are written twice.",
            ) from error


def prompt_file(named: Path | None) -> Path:
    """The file of judge prompts: the named one, the user's own, the packaged ones."""
    if named is not None:
        return named
    own = DATA / PROMPTS
    return own if own.is_file() else packaged() / PROMPTS


def read_prompts(path: Path) -> dict[str, JudgePrompt]:
    """The prompts of a file by name.

    Raises:
        DataError: there are none, or one is incomplete; names it.
    """
    prompts = [_prompt(path, record) for record in read_records(path)]
    if not prompts:
        raise DataError(f"{path} holds no judge prompts.")
    return {prompt.name: prompt for prompt in prompts}


def _prompt(path: Path, record: Record) -> JudgePrompt:
    name = f"Judge prompt {record.get('name')!r} of {path}"
    for key in ("name", "system_prompt", "prompt_template", "output_format"):
        if not isinstance(record.get(key), str):
            raise DataError(f"{name}: {key} is {record.get(key)!r}; a string is needed.")
    kind = record.get("type")
    if kind not in ("single", "pairwise"):
        raise DataError(f"{name}: type is {kind!r}; allowed are single and pairwise.")
    if record["output_format"] not in _FORMATS[kind]:
        raise DataError(
            f"{name}: output_format is {record['output_format']!r}; a {kind} prompt may have"
            f" {' or '.join(_FORMATS[kind])}."
        )
    return JudgePrompt(
        record["name"],
        kind,
        record["system_prompt"],
        record["prompt_template"],
        record["output_format"],
    )


def prompt_for(
    prompts: Mapping[str, JudgePrompt], kind: Kind, question: Question, turn: int
) -> JudgePrompt:
    """The prompt that judges a turn (1 or 2) of a question.

    Raises:
        DataError: the file has none of that name.
    """
    name = _NAMES[kind][question.needs_reference] + ("-multi-turn" if turn > 1 else "")
    if name not in prompts:
        raise DataError(
            f"There is no judge prompt {name}; there are {', '.join(sorted(prompts))}.",
            hint="Add it to the file of judge prompts.",
        )
    return prompts[name]


def fields_of(
    question: Question, turn: int, answers: Sequence[Sequence[str]], reference: Sequence[str]
) -> dict[str, str]:
    """What a template's fields stand for.

    Args:
        question: that was asked.
        turn: that is judged, 1 or 2; the second is shown together with the first.
        answers: each model's turns: of one model, or of A and of B.
        reference: right answers, turn by turn, if there are some.
    """
    fields = {f"ref_answer_{place}": text for place, text in enumerate(reference, start=1)}
    sides = ("",) if len(answers) == 1 else ("_a", "_b")
    if turn == 1:
        fields["question"] = question.turns[0]
        for side, turns in zip(sides, answers, strict=True):
            fields[f"answer{side}"] = turns[0]
        return fields
    for place in range(2):
        fields[f"question_{place + 1}"] = question.turns[place]
        for side, turns in zip(sides, answers, strict=True):
            fields[f"answer{side}_{place + 1}"] = turns[place]
    return fields
