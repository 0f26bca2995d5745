"""The bytes behind a tokenizer's ids, for SentencePiece and for the tokenizers library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastchat.errors import RequestError
from fastchat.model.text_stream import SPACE

_MARK = "\x02"  # merges with nothing, so what stands behind it is split as inside a text


@dataclass(frozen=True)
class Pieces:
    """A vocabulary as bytes.

    Attributes:
        texts: what each id adds inside a text; special ids have names that no text has.
        silent: ids that add nothing to an answer's text.
        drops_space: whether an answer loses the space that its first piece begins with.
        keeps_space: ids whose space it does not lose.
        encode: ids of a text that stands inside another; may be wrong, and is then not used.
    """

    texts: list[bytes]
    silent: frozenset[int]
    drops_space: bool
    keeps_space: frozenset[int]
    encode: Callable[[str], list[int]]


def pieces_of(tokenizer: Any, vocab_size: int) -> Pieces:
    """The pieces of a tokenizer.

    Args:
        tokenizer: one of transformers' kind, backed by SentencePiece or by `tokenizers`.
        vocab_size: of the model; ids that the tokenizer does not know are silent.

    Raises:
        RequestError: it is backed by something else.
    """
    if hasattr(tokenizer, "sp_model"):
        return _sentencepieces(tokenizer, vocab_size)
    if hasattr(tokenizer, "backend_tokenizer"):
        return _library_pieces(tokenizer, vocab_size)
    raise RequestError(
        f"This model's tokenizer ({type(tokenizer).__name__}) cannot keep answers in a form.",
        hint="Leave out response_format, or serve a model with a SentencePiece tokenizer or"
        " a tokenizer.json.",
        param="response_format",
    )


def _sentencepieces(tokenizer: Any, vocab_size: int) -> Pieces:
    model = tokenizer.sp_model
    count = min(model.get_piece_size(), vocab_size)
    one_byte = frozenset(i for i in range(count) if model.is_byte(i))
    silent = set(tokenizer.added_tokens_decoder) | set(range(count, vocab_size))
    silent |= {i for i in range(count) if model.is_control(i) or model.is_unknown(i)}
    texts = [_special(i) for i in range(vocab_size)]
    for token in range(count):
        piece = model.id_to_piece(token)
        if token in one_byte:
            texts[token] = bytes([int(piece[1:-1], 16)])
        elif token not in silent:
            texts[token] = piece.replace(SPACE, " ").encode()
    mark = model.encode(_MARK)[-1:]

    def encode(text: str) -> list[int]:
        ids = list(model.encode(_MARK + text))
        return ids[ids.index(mark[0]) + 1 :] if mark and mark[0] in ids else []

    return Pieces(texts, _inside(silent, vocab_size), True, one_byte, encode)


def _library_pieces(tokenizer: Any, vocab_size: int) -> Pieces:
    from llguidance.hf import from_tokenizer

    known = len(tokenizer)
    # llguidance reads the tokenizer's own file; sizes below the file's are not for it.
    table = from_tokenizer(tokenizer, n_vocab=max(known, vocab_size))
    silent = set(range(known, vocab_size)) | set(tokenizer.all_special_ids)
    texts = [_special(i) for i in range(vocab_size)]
    for token in range(min(known, vocab_size)):
        if table.is_special_token(token):
            silent.add(token)
        elif token not in silent:
            texts[token] = table.decode_bytes([token])
    spaced = [i for i, text in enumerate(texts) if text.startswith(b" ")]
    # Of one character, which shows what happens to it; longer ones are treated alike.
    single = [i for i in spaced if len(texts[i]) == 1] or spaced[:1]
    kept = frozenset(i for i in single if tokenizer.decode([i]).startswith(" "))
    drops_space = len(kept) < len(single)
    return Pieces(
        texts,
        _inside(silent, vocab_size),
        drops_space,
        kept,
        lambda text: list(table.tokenize_str(text)),
    )


def _special(token: int) -> bytes:
    """A name that begins as no text can, as llguidance writes special tokens."""
    return b"\xff[%d]" % token


def _inside(ids: set[int], vocab_size: int) -> frozenset[int]:
    return frozenset(i for i in ids if 0 <= i < vocab_size)
