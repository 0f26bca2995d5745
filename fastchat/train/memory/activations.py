"""What a forward pass leaves in memory for the backward pass.

Counted tensor by tensor from the network's operations, in the manner of Korthikanti et al.,
"Reducing Activation Recomputation in Large Transformer Models", 2022, arXiv:2205.05198; their
network has other parts, so their constants do not carry over. Autograd keeps, of a product
with a matrix that is trained, its input; of a norm its input in fp32 and, if it is trained,
its normalised input; of an elementwise product both factors; of attention by a fused kernel
q, k, v, its output and one number a head and token.

Shapes: T tokens of a micro-batch, H hidden, F intermediate, N heads, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastchat.train.memory.shape import ModelShape

LOSS_CHUNK = 256
"""Trained tokens whose logits are held at once."""

_FP32 = 4
_MASK = 1  # dropout keeps a byte for each number


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes a number, by what it is for.

    Attributes:
        matmul: inputs and outputs of matrix products.
        norm: outputs of norms, and the weights that they are multiplied with.
        residual: the residual stream.
    """

    matmul: int
    norm: int
    residual: int

    @property
    def autocast(self) -> bool:
        """Each matrix product makes a copy of its input in its own format."""
        return self.matmul != self.norm


BF16 = Precision(matmul=2, norm=2, residual=2)
"""Weights in bfloat16, as DeepSpeed and LoRA hold them."""

AUTOCAST = Precision(matmul=2, norm=4, residual=4)
"""Weights in fp32, matrix products in bfloat16."""

FP32 = Precision(matmul=4, norm=4, residual=4)
"""Everything in fp32."""


def saved_by_layer(shape: ModelShape, precision: Precision) -> int:
    """Bytes a token that one fully trained layer keeps."""
    hidden, b = shape.hidden, precision.matmul
    copies = 2 if precision.autocast else 1
    norms = 3 * (_FP32 + precision.norm)
    inputs = b + copies * 2 * b  # of v; of q and k; of up and gate
    filters = 2 * b + b  # pairs of tokens, H and then H / 2 wide
    attention = 4 * b
    feed_forward = 4 * b * shape.intermediate  # up, its activation, gate, their product
    return hidden * (norms + inputs + filters + attention) + feed_forward + _FP32 * shape.heads


def saved_by_adapted_layer(
    shape: ModelShape, precision: Precision, modules: tuple[str, ...], rank: int, *, dropout: bool
) -> int:
    """Bytes a token that one frozen layer with a LoRA adapter keeps.

    Every adapted matrix keeps an input of its own, its dropout mask, and what lies between
    the adapter's two matrices.
    """
    b = precision.matmul
    norms = 3 * _FP32 * shape.hidden
    attention = 4 * b * shape.hidden
    feed_forward = 3 * b * shape.intermediate  # up, its activation, gate
    inputs = sum(shape.widths(module)[0] for module in modules)
    adapters = inputs * (b + _MASK * dropout) + b * rank * len(modules)
    return norms + attention + feed_forward + adapters + _FP32 * shape.heads


def saved_weights(
    shape: ModelShape, precision: Precision, modules: tuple[str, ...] = (), rank: int = 0
) -> int:
    """Bytes that one layer keeps whatever the number of tokens.

    The filter's weights, regrouped so that each convolution is one product, and an adapter's
    weights in the format of matrix products.
    """
    once = ModelShape("", shape.hidden, shape.intermediate, 1, shape.heads)
    return precision.matmul * (once.filters + once.adapter(rank, modules))


def boundary(shape: ModelShape, precision: Precision) -> int:
    """Bytes a token that a checkpointed layer keeps: its input."""
    return precision.residual * shape.hidden


def after_layers(shape: ModelShape, precision: Precision) -> int:
    """Bytes a token kept behind the last layer: the last norm's, and the output matrix's input."""
    return shape.hidden * (_FP32 + precision.norm + 2 * precision.matmul)


def backward_workspace(shape: ModelShape, precision: Precision) -> int:
    """Bytes a token of gradients that a layer's backward pass holds at once.

    Most are alive in the feed-forward part: of the product, of the activation and of gate.
    """
    return 3 * precision.matmul * shape.intermediate


def attention_matrix(shape: ModelShape) -> tuple[int, int]:
    """Bytes for each pair of tokens of a row that unfused attention needs, in one layer.

    The published code adds an fp32 mask, so that its scores are fp32. Kept: scores and
    probabilities in fp32, probabilities in bfloat16. Working: two fp32 gradients.

    Returns:
        kept until the backward pass, and needed beside it while it runs.
    """
    return (_FP32 + _FP32 + 2) * shape.heads, 2 * _FP32 * shape.heads


def chunked_loss(shape: ModelShape, precision: Precision, tokens: int, *, trained: bool) -> int:
    """Bytes that the loss works in where logits are made a chunk at a time.

    A chunk's logits in fp32 and in the matrix products' format, and, if the output matrix is
    trained, a chunk's gradient of it in fp32.
    """
    chunk = min(tokens, LOSS_CHUNK)
    logits = (_FP32 + precision.matmul) * chunk * shape.vocabulary
    return logits + _FP32 * trained * shape.head


def full_loss(shape: ModelShape, precision: Precision, tokens: int) -> int:
    """Bytes of logits where every token's are made at once.

    Three of a kind are alive at the peak: the shifted copy, the log-probabilities and a
    gradient; before that logits, shifted copy and log-probabilities. Autocast computes the
    loss in fp32.
    """
    return tokens * shape.vocabulary * 3 * (_FP32 if precision.autocast else precision.matmul)
