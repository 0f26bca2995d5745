"""What `peer_llamafactory.py` has both sides train: a random Llama, a tokenizer, conversations.

Words are tokens, so that both sides make the same ids of a text whatever their libraries'
versions; what a word is does not matter to speed.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

GEOMETRIES = {  # hidden size, layers, heads, size in between, vocabulary
    "tiny": (64, 2, 4, 256, 2048),
    "T": (256, 4, 4, 1024, 135040),
    "M": (1024, 8, 16, 4096, 135040),
}
DATA = ("single", "turns8")
GROUP = 4
MAX_LENGTH = 1024
"""Longest row of either side, in tokens; conversations stay below it."""

TEMPLATE = "deepseek"
"""The name by which LLaMA-Factory knows the chat template below."""

_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "User: {{ message['content'] }}\n\nAssistant:"
    "{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
_ROLES = ("User:", "Assistant:")
PAD_ID = _SPECIAL.index("<pad>")


def message_lengths(data: str) -> list[list[int]]:
    """The number of words of each message of each conversation, questions and answers in turn.

    `single` has 1,000 conversations of one question, 120 tokens on average, 65 % of them
    learned; `turns8` 200 of eight, 55 tokens a message. The template's tokens are among
    them: 3 in the first question, 2 in each further one and 1 in each answer.
    """
    import numpy as np

    rng = np.random.default_rng(20)
    if data == "single":
        drawn = rng.lognormal(0, [0.6, 0.8], (1000, 2))
        drawn *= [39, 77] / drawn.mean(axis=0)
    else:
        drawn = rng.lognormal(0, 0.3, (200, 16))
        drawn *= [52, 54, *[53, 54] * 7] / drawn.mean(axis=0)
    drawn *= np.minimum(1, 960 / drawn.sum(axis=1, keepdims=True))
    return [[max(1, round(words)) for words in row] for row in drawn.tolist()]


def write_inputs(folder: Path, geometry: str, data: str) -> None:
    """Writes `model/`, `data.json` and what LLaMA-Factory needs besides.

    Its own sampler by length begins with the longest samples, so a few steps would say little
    of the rest. `grouped.json` holds its groups in random order instead: samples of like
    length, `GROUP` by `GROUP`.
    """
    vocabulary = GEOMETRIES[geometry][-1]
    _write_tokenizer(folder / "model", vocabulary)
    _write_model(folder / "model", geometry)
    conversations = _conversations(data, vocabulary - len(_SPECIAL) - len(_ROLES))
    lengths = message_lengths(data)
    ascending = sorted(range(len(lengths)), key=lambda place: sum(lengths[place]))
    groups = [ascending[start : start + GROUP] for start in range(0, len(ascending), GROUP)]
    random.Random(22).shuffle(groups)
    grouped = [conversations[place] for group in groups for place in group]
    (folder / "data.json").write_text(json.dumps(conversations), encoding="utf-8")
    (folder / "grouped.json").write_text(json.dumps(grouped), encoding="utf-8")
    info = {
        name: {"file_name": f"{name}.json", "formatting": "sharegpt"}
        for name in ("data", "grouped")
    }
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [*_SPECIAL, *_ROLES]
    known += [f"w{number}" for number in range(vocabulary - len(known))]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(
        Regex(rf"{'|'.join(_ROLES)}|w\d+"), "removed", invert=True
    )
    pad, bos, eos, unknown = _SPECIAL
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=pad, bos_token=bos, eos_token=eos, unk_token=unknown
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def _write_model(folder: Path, geometry: str) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, heads, between, vocabulary = GEOMETRIES[geometry]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=between,
        max_position_embeddings=2 * MAX_LENGTH,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        bos_token_id=_SPECIAL.index("<s>"),
        eos_token_id=_SPECIAL.index("</s>"),
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def _conversations(data: str, words: int) -> list[dict[str, object]]:
    import numpy as np

    rng = np.random.default_rng(21)
    return [
        {
            "id": f"{data}_{number}",
            "conversations": [
                {
                    "from": "gpt" if place % 2 else "human",
                    "value": " ".join(f"w{word}" for word in rng.integers(words, size=length)),
                }
                for place, length in enumerate(lengths)
            ],
        }
        for number, lengths in enumerate(message_lengths(data))
    ]
