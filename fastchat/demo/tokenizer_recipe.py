"""Builds the demo model's `tokenizer.model` from the bundled texts, the same bytes each time.

    python -m fastchat.demo.tokenizer_recipe --out DIR

A small SentencePiece model in the shape of the published Yuan2 tokenizer: BPE with byte
fallback, identity normalisation, a dummy prefix, single digits, and the chat marks appended
as ordinary pieces that no plain text can reach. Knows nothing of transformers, chat
templates or the network that will use it.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastchat.demo.corpus import load_conversations, load_prose, unique_texts

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

TOKENIZER_FILE = "tokenizer.model"

SPECIAL_PIECES = (
    "<eod>",
    "<n>",
    "<sep>",
    "<pad>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<empty_output>",
    "<commit_before>",
    "<commit_msg>",
    "<commit_after>",
    "<mask>",
    "<predict>",
    "<FIM_SUFFIX>",
    "<FIM_PREFIX>",
    "<FIM_MIDDLE>",
)
"""In the order of the published vocabulary; there the last five are added by transformers."""

VOCAB_SIZE = 1920
"""All pieces, special ones included: 15 x 128, an even shape for the output matrix."""

CHARACTER_COVERAGE = 0.998
"""Characters seen once or twice, in the prose only, are left to the bytes."""

CONVERSATION_WEIGHT = 3
"""The model writes answers, not prose: merges that shorten them are worth more."""


def training_sentences() -> list[str]:
    """The texts that the merges are learned from, in a fixed order."""
    return load_prose() + unique_texts(load_conversations()) * CONVERSATION_WEIGHT


def build_tokenizer(sentences: Iterable[str], *, vocab_size: int = VOCAB_SIZE) -> bytes:
    """Train the merges, append the special pieces, check the result; returns the model file.

    Raises:
        ValueError: a piece would make a special piece reachable from plain text.
    """
    model = append_special_pieces(_train(sentences, vocab_size - len(SPECIAL_PIECES)))
    check_special_pieces(model)
    return model


def _train(sentences: Iterable[str], vocab_size: int) -> bytes:
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=written,
        model_type="bpe",
        vocab_size=vocab_size,
        character_coverage=CHARACTER_COVERAGE,
        # The texts hold no such brackets, yet `<n>` between two turns is spelled with them.
        required_chars="<>",
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        # No sampling, no shuffling, one thread: nothing is left to chance.
        input_sentence_size=0,
        shuffle_input_sentence=False,
        num_threads=1,
        minloglevel=2,
    )
    return written.getvalue()


def append_special_pieces(model: bytes) -> bytes:
    """The same model with the special pieces at its end.

    They are of type NORMAL with score 0, as in the published file. Such a piece is not
    matched as a whole; plain text reaches it only if two shorter pieces join into it.
    """
    proto = _parse(model)
    known = {piece.piece for piece in proto.pieces}
    for name in SPECIAL_PIECES:
        if name in known:
            raise ValueError(f"the trained vocabulary already holds {name!r}; it must not.")
        proto.pieces.add(piece=name, score=0.0)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized


def check_special_pieces(model: bytes) -> None:
    """Make sure that plain text, even their own names, never yields a special piece.

    Raises:
        ValueError: names the piece that could be reached.
    """
    for piece in ordinary_pieces(model):
        # BPE joins neighbours. The last join before "<sep>" would need a piece that begins
        # with "<" or ends with ">" and is longer than the bracket alone.
        if len(piece) > 1 and ("<" in piece or ">" in piece):
            raise ValueError(
                f"the piece {piece!r} could grow into a special piece; "
                "'<' and '>' are allowed only as pieces of their own."
            )
    processor = load_processor(model)
    special_ids = {processor.piece_to_id(name) for name in SPECIAL_PIECES}
    for name in SPECIAL_PIECES:
        for text in (name, f"a{name}b", f"你好{name}你好", name * 3):
            if special_ids.intersection(processor.encode(text)):
                raise ValueError(f"the text {text!r} yields a special piece; none may.")


def ordinary_pieces(model: bytes) -> list[str]:
    """The pieces that text is made of: no control, unknown, byte or special piece."""
    proto = _parse(model)
    normal = proto.SentencePiece.NORMAL
    return [p.piece for p in proto.pieces if p.type == normal and p.piece not in SPECIAL_PIECES]


def load_processor(model: bytes) -> SentencePieceProcessor:
    """SentencePiece's own tokenizer over the bytes of a model file."""
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_proto=model)


def _parse(model: bytes) -> Any:
    from sentencepiece import sentencepiece_model_pb2

    # Generated code without type information.
    generated: Any = sentencepiece_model_pb2
    proto = generated.ModelProto()
    proto.ParseFromString(model)
    return proto


def write_tokenizer(folder: Path) -> Path:
    """Build the demo tokenizer into `folder`, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TOKENIZER_FILE
    path.write_bytes(build_tokenizer(training_sentences()))
    return path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `--help` costs no heavy import."""
    parser = argparse.ArgumentParser(
        prog="python -m fastchat.demo.tokenizer_recipe",
        description=f"Build the demo tokenizer ({VOCAB_SIZE} pieces) from the bundled texts.",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help=f"folder for {TOKENIZER_FILE}"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the tokenizer file and say where it is."""
    path = write_tokenizer(parse_args(argv).out)
    print(f"{path}: {VOCAB_SIZE} pieces, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
