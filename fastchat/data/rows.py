"""Rows of token ids and labels, built from conversations; pure.

A row is what the model reads in one sequence, with labels only where it is to learn. Rows
are built by the chat renderer that serving uses, so a model is trained on exactly the ids
that it is served with. Knows nothing of files, batches or torch.

The three modes, for a conversation q1 a1 q2 a2 (`|` marks where the learning starts):

    split_example_loss   q1<sep> | a1<eod>    and    q1<n>a1<n>q2<sep> | a2<eod>
    last_response_loss   q1<n>a1<n>q2<sep> | a2<eod>
    efficient_loss       the same sequence, with a1 learned inside it as well

In the first two every learned answer stands exactly as it is served. In the third only the
last one does: the earlier ones are learned behind `<n>` in place of `<sep>`, with the
tokens of the whole history, of which some may straddle an answer's border. Those are not
learned, and counted.

A row longer than the limit loses its oldest whole turns (the system text stays); if even
the last question and its answer are too long, the row is left out. No answer is ever cut.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from fastchat.chat import ChatRenderer, RenderedPrompt
from fastchat.data.sample import Sample
from fastchat.errors import DataError, RequestError
from fastchat.prompt_styles import YUAN2_ANSWER, Span

IGNORED = -100
"""The label of a token that is not learned."""

Offset = tuple[int, int]
OffsetEncoder = Callable[[str], tuple[list[int], list[Offset]]]
"""Plain text -> its ids and, for each, the characters [start, end) that it stands for."""


class LossMode(enum.StrEnum):
    """Which answers of a conversation are learned, and how they are laid out in rows."""

    SPLIT_EXAMPLE = "split_example_loss"
    LAST_RESPONSE = "last_response_loss"
    EFFICIENT = "efficient_loss"


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence to train on.

    Attributes:
        sample_id: where it comes from.
        input_ids: S token ids.
        labels: S labels: the id itself where it is learned, else -100. Not shifted.
        dropped_turns: how many of the oldest turns (messages) had to go to make it fit.
        straddling: tokens across an answer's border, which are not learned.
    """

    sample_id: str
    input_ids: list[int]
    labels: list[int]
    dropped_turns: int = 0
    straddling: int = 0

    @property
    def learned(self) -> int:
        """Number of learned tokens."""
        return len(self.labels) - self.labels.count(IGNORED)


@dataclass(slots=True)
class RowStats:
    """What became of the samples of a data set.

    `tokens` counts those of all rows; `laid_out_tokens` those that are computed, with each
    beginning that several rows of a sample share standing once.
    """

    samples: int = 0
    rows: int = 0
    tokens: int = 0
    laid_out_tokens: int = 0
    learned_tokens: int = 0
    straddling_tokens: int = 0
    shortened_rows: int = 0
    too_long_rows: int = 0
    samples_without_answer: int = 0
    leading_turns_dropped: int = 0
    trailing_questions_dropped: int = 0

    def add_sample(self, sample: Sample) -> None:
        """Counts a sample, before its rows."""
        self.samples += 1
        self.samples_without_answer += not sample.messages
        self.leading_turns_dropped += sample.leading_dropped
        self.trailing_questions_dropped += sample.trailing_dropped

    def add_row(self, row: Row | None) -> None:
        """Counts a row; None is one that was too long."""
        if row is None:
            self.too_long_rows += 1
            return
        self.rows += 1
        self.tokens += len(row.input_ids)
        self.learned_tokens += row.learned
        self.straddling_tokens += row.straddling
        self.shortened_rows += row.dropped_turns > 0

    def add(self, other: RowStats) -> None:
        """Adds the counts of other samples."""
        for name, count in asdict(other).items():
            setattr(self, name, getattr(self, name) + count)

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)

    def __str__(self) -> str:
        """The counts in a sentence; what did not occur is left out."""
        share = f" ({self.learned_tokens / self.tokens:.1%})" if self.tokens else ""
        parts = [
            f"{self.samples} samples -> {self.rows} rows",
            f"{self.tokens} tokens, {self.learned_tokens} of them learned{share}",
        ]
        if 0 < self.laid_out_tokens < self.tokens:
            parts.append(f"{self.laid_out_tokens} tokens to compute: shared beginnings once")
        for count, what in (
            (self.shortened_rows, "rows shortened by their oldest turns"),
            (self.too_long_rows, "rows left out: too long"),
            (self.samples_without_answer, "samples without an answer: nothing to learn"),
            (self.leading_turns_dropped, "turns before the first question left out"),
            (self.trailing_questions_dropped, "last questions without an answer left out"),
            (self.straddling_tokens, "tokens across an answer's border not learned"),
        ):
            if count:
                parts.append(f"{count} {what}")
        return "; ".join(parts)


class RowBuilder:
    """Builds the rows of conversations.

    Args:
        renderer: the model's chat renderer.
        mode: which answers are learned.
        max_length: longest row allowed, in tokens.
        encode_offsets: the tokenizer's plain-text encoding with offsets; only
            `EFFICIENT` asks for it.
    """

    def __init__(
        self,
        renderer: ChatRenderer,
        mode: LossMode,
        max_length: int,
        encode_offsets: OffsetEncoder | None = None,
    ) -> None:
        self._renderer = renderer
        self._mode = mode
        self._max_length = max_length
        self._encode_offsets = encode_offsets

    def targets(self, sample: Sample) -> Sequence[int]:
        """The messages that rows end with: one row for each."""
        return sample.answers if self._mode is LossMode.SPLIT_EXAMPLE else sample.answers[-1:]

    def row(self, sample: Sample, target: int) -> Row | None:
        """The row that ends with an answer, or None where it cannot be made to fit.

        Args:
            sample: the conversation.
            target: index of the answer among its messages, one of `targets`.

        Raises:
            DataError: see `rows`.
        """
        return self._rows([(sample, target)])[0]

    def rows(self, samples: Sequence[Sample]) -> list[list[Row | None]]:
        """Of each sample the rows of its targets, tokenised together; None as in `row`.

        Raises:
            DataError: the model's template refuses a conversation; or the mode asks where
                the earlier answers are, and template or tokenizer cannot tell.
        """
        targets = [self.targets(sample) for sample in samples]
        ends = [(sample, end) for sample, own in zip(samples, targets, strict=True) for end in own]
        rows = iter(self._rows(ends))
        return [list(islice(rows, len(own))) for own in targets]

    def _rows(self, ends: Sequence[tuple[Sample, int]]) -> list[Row | None]:
        answers = self._renderer.all_answer_ids(
            [sample.messages[target]["content"] for sample, target in ends]
        )
        try:
            prompts = self._renderer.all_prompt_ids(
                [sample.messages[:target] for sample, target in ends]
            )
        except RequestError:
            prompts = [self._render(*end).ids for end in ends]
        return [
            self._row(*end, prompt, answer)
            for end, prompt, answer in zip(ends, prompts, answers, strict=True)
        ]

    def _row(self, sample: Sample, target: int, prompt: list[int], answer: list[int]) -> Row | None:
        room = self._max_length - len(answer)
        first = start = sample.first_question
        if len(prompt) > room:
            # The fewer turns, the shorter: the first of them that leaves room is the one.
            starts = range(first, target, 2)
            place = bisect_left(
                starts,
                True,
                lo=1,
                key=lambda start: len(self._render(sample, target, start).ids) <= room,
            )
            if place == len(starts):
                return None
            start = starts[place]
            prompt = self._render(sample, target, start).ids
        labels, straddling = [IGNORED] * len(prompt), 0
        if self._mode is LossMode.EFFICIENT:
            earlier = sample.messages[start + 1 : target : 2]
            if any(message["content"].strip() for message in earlier):
                rendered = self._render(sample, target, start)
                labels, straddling = self._label_earlier_answers(rendered, sample)
        return Row(
            sample_id=sample.id,
            input_ids=prompt + answer,
            labels=labels + answer,
            dropped_turns=start - first,
            straddling=straddling,
        )

    def _render(self, sample: Sample, target: int, start: int | None = None) -> RenderedPrompt:
        """What stands before an answer, from the turn `start` on if it is given."""
        first = sample.first_question
        start = first if start is None else start
        try:
            return self._renderer.render(sample.messages[:first] + sample.messages[start:target])
        except RequestError as error:
            raise DataError(f"Sample {sample.id!r} cannot be rendered: {error}") from error

    def _label_earlier_answers(
        self, prompt: RenderedPrompt, sample: Sample
    ) -> tuple[list[int], int]:
        typed = prompt.text.removesuffix(YUAN2_ANSWER)
        ids: list[int] = []
        offsets: list[Offset] = []
        if self._encode_offsets is not None and prompt.spans:
            ids, offsets = self._encode_offsets(typed)
        if not ids or prompt.ids[: len(ids)] != ids:
            raise DataError(
                f"Sample {sample.id!r} has several answers, and {LossMode.EFFICIENT} needs the"
                " Yuan2 template and tokenizer to find the tokens of the earlier ones.",
                hint=f"Choose {LossMode.SPLIT_EXAMPLE} or {LossMode.LAST_RESPONSE}.",
            )
        labels, straddling = label_answers(ids, offsets, prompt.spans)
        return labels + [IGNORED] * (len(prompt.ids) - len(ids)), straddling


def label_answers(
    ids: Sequence[int], offsets: Sequence[Offset], spans: Sequence[Span]
) -> tuple[list[int], int]:
    """Labels the tokens that lie wholly inside an answer.

    Args:
        ids: token ids of a text.
        offsets: the characters [start, end) of each token.
        spans: who owns which characters of the text.

    Returns:
        The labels, and the number of tokens that lie across an answer's border.
    """
    length = max((end for _, end in offsets), default=0)
    owners: list[int | None] = [None] * length
    for span in spans:
        if span.role == "assistant":
            owners[span.start : span.end] = [span.message] * (span.end - span.start)
    labels, straddling = [], 0
    for token, (start, end) in zip(ids, offsets, strict=True):
        touched = set(owners[start:end])  # empty for a dummy prefix, which belongs to nobody
        learned = len(touched) == 1 and None not in touched
        labels.append(token if learned else IGNORED)
        straddling += not learned and bool(touched - {None})
    return labels, straddling
