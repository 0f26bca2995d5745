"""Names and shapes of a Yuan2 checkpoint's weights, and whether a folder has just these.

For readers that build no network of transformers. Knows nothing of file formats.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastchat.errors import CheckpointError
from fastchat.model.configuration_yuan import YuanConfig
from fastchat.model.file_pages import forget_pages
from fastchat.model.weight_files import WeightFiles

_COMPARED_ROWS = 1024


def published_shapes(config: YuanConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every weight of a checkpoint."""
    hidden, vocab = config.hidden_size, config.vocab_size
    yield "model.embed_tokens.weight", (vocab, hidden)
    yield "lm_head.weight", (vocab, hidden)
    yield "model.norm.weight", (hidden,)
    for number in range(config.num_hidden_layers):
        for name, shape in layer_shapes(config):
            yield f"model.layers.{number}.{name}", shape


def layer_shapes(config: YuanConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every weight of one decoder layer."""
    hidden, wide = config.hidden_size, config.intermediate_size
    yield "input_layernorm.weight", (hidden,)
    yield "post_attention_layernorm.weight", (hidden,)
    yield "self_attn.lf_gate.conv1.weight", (hidden // 2, hidden, 2, 1)
    yield "self_attn.lf_gate.conv1.bias", (hidden // 2,)
    yield "self_attn.lf_gate.conv2.weight", (hidden, hidden // 2, 2, 1)
    yield "self_attn.lf_gate.conv2.bias", (hidden,)
    yield "self_attn.lf_gate.output_layernorm.weight", (hidden,)
    for name in "qkvo":
        yield f"self_attn.{name}_proj.weight", (hidden, hidden)
    yield "mlp.up_proj.weight", (wide, hidden)
    yield "mlp.gate_proj.weight", (wide, hidden)
    yield "mlp.down_proj.weight", (hidden, wide)


def refuse_other_weights(weights: WeightFiles, config: YuanConfig) -> None:
    """Refuses weights that are missing, unknown, misshapen or tied against the config.

    Raises:
        CheckpointError: names the first few at fault.
    """
    expected = dict(published_shapes(config))
    misshaped = [
        f"{name} {weights.shape(name)} instead of {shape}"
        for name, shape in expected.items()
        if name in weights and weights.shape(name) != shape
    ]
    for problem, names in (
        ("lacks the weights", sorted(name for name in expected if name not in weights)),
        ("has weights that Yuan2 does not know", sorted(set(weights.names) - expected.keys())),
        ("has weights of other shapes than config.json says", misshaped),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise CheckpointError(
                f"The checkpoint {weights.folder} {problem}: {', '.join(names[:5])}{more}.",
                hint="Check that all weight files are there and belong to this config.json.",
            )
    if config.tie_word_embeddings and not _same_head(weights):
        raise CheckpointError(
            f"config.json in {weights.folder} says tie_word_embeddings: true, but lm_head.weight"
            " differs from model.embed_tokens.weight.",
            hint="Set tie_word_embeddings to false, or remove lm_head.weight.",
        )


def _same_head(weights: WeightFiles) -> bool:
    """Whether the two matrices agree, by rows from all over: those of another differ everywhere."""
    embedding = weights.read("model.embed_tokens.weight")
    step = max(1, len(embedding) // _COMPARED_ROWS)
    some = embedding[::step].clone()  # one file may be open at a time
    forget_pages(embedding)
    head = weights.read("lm_head.weight")
    same = bool((head[::step] == some).all())
    forget_pages(head)
    return same
