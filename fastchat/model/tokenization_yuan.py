"""The Yuan2 tokenizer: SentencePiece's own ids, as the published models were trained on.

transformers' Llama tokenizers rebuild `tokenizer.model` and give other ids for it, so this
class encodes and decodes every run of text between special tokens with SentencePiece
itself. Knows nothing of models or of chat beyond Yuan2's published template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from transformers import AddedToken
from transformers.tokenization_utils_base import BatchEncoding, PaddingStrategy, TruncationStrategy
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from fastchat.utils import available_cores

EOD = "<eod>"
SEP = "<sep>"

SPECIAL_TOKENS = (
    SEP,
    "<pad>",
    "<mask>",
    "<predict>",
    "<FIM_SUFFIX>",
    "<FIM_PREFIX>",
    "<FIM_MIDDLE>",
    "<commit_before>",
    "<commit_msg>",
    "<commit_after>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<empty_output>",
)
"""Added to every Yuan2 tokenizer. Their order fixes the ids of those not in the model file."""

CHAT_TEMPLATE = (
    "{%- set turns = namespace(last=-1) -%}"
    "{%- for message in messages if message['role'] != 'system' -%}"
    "{%- set turns.last = turns.last + 1 -%}"
    "{%- endfor -%}"
    "{%- set turns.seen = -1 -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{{ message['content'].strip() + '\\n' }}"
    "{%- elif message['role'] in ('user', 'assistant') -%}"
    "{%- set turns.seen = turns.seen + 1 -%}"
    "{{ message['content'].strip() + ('<sep>' if turns.seen == turns.last else '<n>') }}"
    "{%- else -%}"
    "{{ raise_exception('Yuan2 knows the roles system, user and assistant, not '"
    " + message['role'] + '.') }}"
    "{%- endif -%}"
    "{%- endfor -%}"
)
"""Yuan2's published chat format as a Jinja template; see `prompt_styles.render_yuan2`."""

Offset = tuple[int, int]


class YuanTokenizer(SentencePieceBackend):
    """Yuan2's tokenizer in transformers' hierarchy.

    No begin or end token is ever added to a text. Whatever a checkpoint's files say, the
    end token is `<eod>` and the separator `<sep>`. Special tokens in a text are parsed
    unless `split_special_tokens=True`, which encodes them as plain text.

    Args:
        vocab_file: path of `tokenizer.model`.
        pad_token: `<eod>` unless told otherwise; any token works where padding is masked.
    """

    vocab_files_names = {"vocab_file": "tokenizer.model"}
    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "left"

    def __init__(
        self,
        vocab_file: str,
        pad_token: str | AddedToken | None = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        # Published tokenizer_config.json files disagree on these; the adapter that the
        # models are served with always forces them.
        for forced in ("eos_token", "sep_token", "bos_token", "unk_token", "legacy", "backend"):
            kwargs.pop(forced, None)
        kwargs.pop("add_bos_token", None)
        kwargs.pop("add_eos_token", None)
        self._special_pattern = re.compile(r"(?!)")
        super().__init__(
            vocab_file=vocab_file,
            unk_token="<unk>",
            bos_token="<s>",
            eos_token=EOD,
            sep_token=SEP,
            pad_token=EOD if pad_token is None else pad_token,
            chat_template=CHAT_TEMPLATE if chat_template is None else chat_template,
            legacy=True,
            special_tokens_pattern="none",
            token_type_ids_pattern="all_zeros",
            **kwargs,
        )
        self.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
        pieces = range(self.sp_model.get_piece_size())
        self._byte_ids = frozenset(i for i in pieces if self.sp_model.is_byte(i))

    # ---- ids ---------------------------------------------------------------------------

    def encode_ids(self, text: str, *, parse_special: bool = True) -> list[int]:
        """The ids of a text.

        Args:
            text: any text.
            parse_special: read special tokens in the text as such; else as plain text.
        """
        if not parse_special:
            return list(self.sp_model.encode(text))
        ids: list[int] = []
        for run, special in self._runs(text):
            ids += [special] if special is not None else self.sp_model.encode(run)
        return ids

    def encode_ids_batch(
        self, texts: Sequence[str], *, parse_special: bool = True, threads: int | None = None
    ) -> list[list[int]]:
        """`encode_ids` of many texts, on all cores if `threads` is None."""
        threads = threads or available_cores()
        if not parse_special:
            return self._encode_runs(list(texts), threads)
        split = [list(self._runs(text)) for text in texts]
        runs = [run for parts in split for run, special in parts if special is None]
        plain = iter(self._encode_runs(runs, threads))
        return [
            [i for _, special in runs for i in ([special] if special is not None else next(plain))]
            for runs in split
        ]

    def encode_offsets(
        self, text: str, *, parse_special: bool = False
    ) -> tuple[list[int], list[Offset]]:
        """Ids and, for each, the characters [start, end) of the text that it stands for.

        The byte pieces of one character share its span. The dummy prefix that SentencePiece
        puts before a run is empty (start == end) where it is a token of its own.
        """
        ids: list[int] = []
        offsets: list[Offset] = []
        start = 0
        for run, special in self._runs(text) if parse_special else [(text, None)]:
            if special is not None:
                ids.append(special)
                offsets.append((start, start + len(run)))
            else:
                run_ids, run_offsets = self._encode_run_offsets(run)
                ids += run_ids
                offsets += [(start + first, start + last) for first, last in run_offsets]
            start += len(run)
        return ids, offsets

    def decode_ids(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The exact text of ids: what was encoded comes back whole.

        Ids beyond the vocabulary (the embedding's padding rows) stand for nothing.
        """
        texts = []
        for special, run in groupby(ids, key=self._added_tokens_decoder.__contains__):
            if not special:
                size = self.sp_model.get_piece_size()
                texts.append(self.sp_model.decode([i for i in run if 0 <= i < size]))
            elif not skip_special_tokens:
                texts += [self._added_tokens_decoder[i].content for i in run]
        return "".join(texts)

    def is_byte_id(self, token_id: int) -> bool:
        """Whether an id is one of the 256 byte pieces."""
        return token_id in self._byte_ids

    def _runs(self, text: str) -> Iterable[tuple[str, int | None]]:
        """Cuts a text at special tokens: (text, None) and (token, its id) in order."""
        start = 0
        for match in self._special_pattern.finditer(text):
            if match.start() > start:
                yield text[start : match.start()], None
            yield match.group(), self._added_tokens_encoder[match.group()]
            start = match.end()
        if start < len(text):
            yield text[start:], None

    def _encode_runs(self, runs: list[str], threads: int) -> list[list[int]]:
        encoded: list[list[int]] = self.sp_model.encode(runs, num_threads=threads)
        return encoded

    def _encode_run_offsets(self, run: str) -> tuple[list[int], list[Offset]]:
        mapping = self.sp_model.encode(run, return_type="offset_mapping")
        ids, offsets = list(mapping["ids"]), list(mapping["offsets"])
        # SentencePiece books a character's whole span on the last of its byte pieces.
        for index in range(len(ids) - 2, -1, -1):
            start, end = offsets[index]
            if start == end and ids[index] in self._byte_ids:
                offsets[index] = offsets[index + 1]
        return ids, offsets

    # ---- transformers' interface -------------------------------------------------------

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> BatchEncoding:
        """As every transformers tokenizer; no begin or end token is ever added."""
        # The general path costs several times what SentencePiece does on a short text.
        if isinstance(text, str) and not args and kwargs.keys() <= {"add_special_tokens"}:
            ids = self.encode_ids(text, parse_special=not self.split_special_tokens)
            return self._columns({"input_ids": ids, "attention_mask": [1] * len(ids)})
        return super().__call__(text, *args, **kwargs)

    def _columns(self, columns: dict[str, Any]) -> BatchEncoding:
        return BatchEncoding({name: columns[name] for name in self.model_input_names})

    @staticmethod
    def _is_plain(kwargs: dict[str, Any]) -> bool:
        """Whether ids and mask are asked for as they are: nothing cut, padded or added."""
        return (
            kwargs.get("padding_strategy", PaddingStrategy.DO_NOT_PAD) is PaddingStrategy.DO_NOT_PAD
            and kwargs.get("truncation_strategy", TruncationStrategy.DO_NOT_TRUNCATE)
            is TruncationStrategy.DO_NOT_TRUNCATE
            and not any(kwargs[name] for name in kwargs if name.startswith("return_"))
        )

    def _encode_plus(
        self,
        text: Any,
        text_pair: Any = None,
        *,
        split_special_tokens: bool | None = None,
        return_offsets_mapping: bool = False,
        **kwargs: Any,
    ) -> BatchEncoding:
        plain = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        if kwargs.get("sanitize_control_tokens") or kwargs.get("is_split_into_words"):
            return super()._encode_plus(text, text_pair, split_special_tokens=plain, **kwargs)
        if isinstance(text, str) and not isinstance(text_pair, (list, tuple)):
            return self._encode_one(text, text_pair, not plain, return_offsets_mapping, kwargs)
        if (
            isinstance(text, (list, tuple))
            and text_pair is None
            and all(isinstance(item, str) for item in text)
        ):
            return self._encode_many(list(text), not plain, return_offsets_mapping, kwargs)
        return super()._encode_plus(
            text,
            text_pair,
            split_special_tokens=plain,
            return_offsets_mapping=return_offsets_mapping,
            **kwargs,
        )

    def _encode_one(
        self, text: str, pair: str | None, parse: bool, with_offsets: bool, kwargs: dict[str, Any]
    ) -> BatchEncoding:
        offsets: list[Offset] = []
        if with_offsets:
            ids, offsets = self.encode_offsets(text, parse_special=parse)
        else:
            ids = self.encode_ids(text, parse_special=parse)
        pair_ids = None if pair is None else self.encode_ids(pair, parse_special=parse)
        encoding = self._prepare(ids, pair_ids, kwargs)
        if with_offsets:
            encoding["offset_mapping"] = self._fit_offsets(offsets, encoding, kwargs)
        return encoding

    def _encode_many(
        self, texts: list[str], parse: bool, with_offsets: bool, kwargs: dict[str, Any]
    ) -> BatchEncoding:
        if not texts:
            return self._columns({"input_ids": [], "attention_mask": []})
        single = kwargs | {
            "padding_strategy": PaddingStrategy.DO_NOT_PAD,
            "pad_to_multiple_of": None,
            "return_tensors": None,
        }
        if with_offsets:
            rows = [self._encode_one(text, None, parse, True, single) for text in texts]
        else:
            batch = self.encode_ids_batch(texts, parse_special=parse)
            if self._is_plain(kwargs):
                masks = [[1] * len(ids) for ids in batch]
                return self._columns({"input_ids": batch, "attention_mask": masks})
            rows = [self._prepare(ids, None, single) for ids in batch]
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        offsets = columns.pop("offset_mapping", None)
        padded = self.pad(
            columns,
            padding=kwargs["padding_strategy"].value,
            max_length=kwargs.get("max_length"),
            pad_to_multiple_of=kwargs.get("pad_to_multiple_of"),
            padding_side=kwargs.get("padding_side"),
            return_attention_mask=kwargs.get("return_attention_mask"),
        )
        if offsets is not None:
            padded["offset_mapping"] = [
                self._pad_offsets(row, len(ids), kwargs)
                for row, ids in zip(offsets, padded["input_ids"], strict=True)
            ]
        return BatchEncoding(padded, tensor_type=kwargs.get("return_tensors"))

    def _prepare(
        self, ids: list[int], pair_ids: list[int] | None, kwargs: dict[str, Any]
    ) -> BatchEncoding:
        passed = {
            name: kwargs[name]
            for name in (
                "add_special_tokens",
                "max_length",
                "stride",
                "pad_to_multiple_of",
                "padding_side",
                "return_tensors",
                "return_attention_mask",
                "return_token_type_ids",
                "return_overflowing_tokens",
                "return_special_tokens_mask",
                "return_length",
                "verbose",
            )
            if name in kwargs
        }
        if pair_ids is None and self._is_plain(kwargs):
            return self._columns({"input_ids": ids, "attention_mask": [1] * len(ids)})
        return self.prepare_for_model(
            ids,
            pair_ids=pair_ids,
            padding=kwargs.get("padding_strategy", PaddingStrategy.DO_NOT_PAD).value,
            truncation=kwargs.get("truncation_strategy", TruncationStrategy.DO_NOT_TRUNCATE).value,
            prepend_batch_axis=True,
            **passed,
        )

    def _fit_offsets(
        self, offsets: list[Offset], encoding: BatchEncoding, kwargs: dict[str, Any]
    ) -> list[Offset]:
        """Cuts and pads offsets as truncation and padding did the ids."""
        ids = encoding["input_ids"]
        length = len(ids[0]) if kwargs.get("return_tensors") else len(ids)
        if kwargs.get("truncation_strategy") not in (None, TruncationStrategy.DO_NOT_TRUNCATE):
            limit = kwargs.get("max_length") or len(offsets)
            left = self.truncation_side == "left"
            offsets = offsets[-limit:] if left else offsets[:limit]
        return self._pad_offsets(offsets, length, kwargs)

    def _pad_offsets(
        self, offsets: list[Offset], length: int, kwargs: dict[str, Any]
    ) -> list[Offset]:
        padding: list[Offset] = [(0, 0)] * (length - len(offsets))
        left = (kwargs.get("padding_side") or self.padding_side) == "left"
        return padding + offsets if left else offsets + padding

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **_: Any,
    ) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        return self.decode_ids(ids, skip_special_tokens=skip_special_tokens)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of pieces; special tokens in between are kept."""
        return self.decode_ids([self.convert_tokens_to_ids(token) for token in tokens])

    def get_vocab(self) -> dict[str, int]:
        """Piece -> id, added tokens included."""
        pieces = self.sp_model.id_to_piece(list(range(self.vocab_size)))
        return {piece: index for index, piece in enumerate(pieces)} | self.added_tokens_encoder

    def _update_total_vocab_size(self) -> None:
        appended = sum(index >= self.vocab_size for index in self._added_tokens_decoder)
        self.total_vocab_size = self.vocab_size + appended

    def _update_trie(self, unique_no_split_tokens: list[str] | None = None) -> None:
        super()._update_trie(unique_no_split_tokens)
        known = sorted(self._added_tokens_encoder, key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, known)) or r"(?!)")
