"""The memory of one GPU by part, for one way of running.

Sources: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models", 2020, arXiv:1910.02054 (what each stage cuts into as many pieces as there are GPUs);
Dettmers et al., "QLoRA", 2023, arXiv:2305.14314 (4-bit blocks and their constants);
torch's, DeepSpeed's and NCCL's documented defaults. No number here is fitted to a measurement
of a whole run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastchat.train.memory import activations as act
from fastchat.train.memory.setup import Setup
from fastchat.train.memory.zero import DEFAULT_BUCKET, ZeroSizes, deepspeed_settings, sizes

MIB = 2**20

CUDA_CONTEXT = 287_047_680
"""Measured in pytorch/pytorch#86509, with kernels loaded when first used: torch's default."""

CUBLAS_WORKSPACES = 2 * 32 * MIB
"""cuBLAS and cuBLASLt, as torch sets them for Hopper; less on older GPUs."""

NCCL_BUFFERS = 2 * 32 * 4 * MIB
"""Both directions of at most 32 channels, NCCL_BUFFSIZE (4 MiB) each."""

NF4_BLOCK, NF4_SUPER_BLOCK = 64, 256
"""Weights that share an 8-bit constant; constants that share an fp32 one."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a GPU's memory.

    Attributes:
        name: what it is for.
        size: in bytes; negative for what two other parts share.
        note: how it comes about.
    """

    name: str
    size: float
    note: str = ""


def memory_parts(setup: Setup) -> list[Part]:
    """What one GPU holds at the peak, by part; the sum is what it needs."""
    return [part for part in _all_parts(setup) if part.size]


def host_memory(setup: Setup) -> float:
    """Bytes of the machines' memory that offloading takes, over all machines.

    Masters, two optimizer states and gradients in fp32, and gradients in bfloat16; with
    everything offloaded the weights too.
    """
    if setup.offload == "none":
        return 0.0
    counts = Counts(setup)
    weights = 2 * (counts.frozen + counts.trained) if setup.offload == "all" else 0
    return 18 * counts.trained + weights


class Counts:
    """Parameters by what happens to them, and how many pieces each kind is cut into."""

    def __init__(self, setup: Setup) -> None:
        spec, shape = setup.spec, setup.spec.shape
        self.adapted = spec.mode != "full"
        adapter = shape.adapter(spec.lora_r, spec.targets)
        self.trained = adapter if self.adapted else shape.parameters
        self.frozen = shape.parameters if self.adapted else 0
        self.four_bit = shape.linears if spec.mode == "qlora" else 0
        self.stage = setup.zero
        self.weight_pieces = spec.gpus if setup.zero == 3 else 1
        self.gradient_pieces = spec.gpus if setup.zero >= 2 else 1
        self.state_pieces = spec.gpus if setup.zero >= 1 else 1

    @property
    def precision(self) -> act.Precision:
        """Weights that are fp32 in memory mean autocast; DeepSpeed makes all bfloat16."""
        fp32 = self.stage == 0 and (not self.adapted or bool(self.four_bit))
        return act.AUTOCAST if fp32 else act.BF16


def _all_parts(setup: Setup) -> Iterator[Part]:
    counts = Counts(setup)
    zero = _zero_sizes(setup)
    yield from _weights(setup, counts)
    yield from _states(setup, counts, zero)
    yield from _communication(setup, counts, zero)
    yield from _passes(setup, counts)
    yield Part("CUDA context", CUDA_CONTEXT + CUBLAS_WORKSPACES, "kernels, cuBLAS workspaces")


def _zero_sizes(setup: Setup) -> ZeroSizes | None:
    settings = deepspeed_settings(setup.zero, setup.offload)
    if settings is None:
        return None
    if setup.spec.upstream:
        settings["zero_optimization"] |= {
            "reduce_bucket_size": DEFAULT_BUCKET,
            "overlap_comm": False,
        }
    return sizes(settings, setup.spec.shape)


def _weights(setup: Setup, counts: Counts) -> Iterator[Part]:
    shape = setup.spec.shape
    if setup.offload == "all":
        return
    if counts.four_bit:
        others = shape.parameters - counts.four_bit
        width = counts.precision.norm
        yield Part("weights", counts.four_bit / 2 + width * others, f"4 bits; {width} bytes other")
        constants = counts.four_bit / NF4_BLOCK * (1 + 4 / NF4_SUPER_BLOCK)
        yield Part("quantisation constants", constants, "double quantisation")
    elif counts.adapted:
        yield Part("weights", 2 * counts.frozen / counts.weight_pieces, "bfloat16, frozen")
    elif counts.stage == 0:
        yield Part("weights", _casts(setup), "bfloat16 copies that autocast keeps")
    else:
        yield Part("weights", 2 * counts.trained / counts.weight_pieces, "bfloat16")


def _states(setup: Setup, counts: Counts, zero: ZeroSizes | None) -> Iterator[Part]:
    share = counts.trained / counts.state_pieces
    on_gpu = setup.offload == "none"
    if zero is None:
        yield Part("gradients", 4 * counts.trained, "fp32")
    elif on_gpu or counts.stage == 1:
        # ZeRO-2 reduces each micro-batch into a buffer of its own before adding it up.
        buffers = 2 if counts.stage == 2 and setup.accumulation > 1 else 1
        yield Part("gradients", buffers * 2 * counts.trained / counts.gradient_pieces, "bfloat16")
    if not on_gpu:
        return
    yield Part("optimizer states", 8 * share, "AdamW's two, fp32")
    yield Part("fp32 masters", 4 * share, "the weights that are stepped")
    if zero is None:
        return
    # One flat piece: larger than what the passes free, so that the allocator gets it anew.
    stepped = min(share, zero.sub_group) if counts.stage == 3 else share
    yield Part("optimizer step", 8 * stepped, "fp32 gradients and AdamW's intermediates")


def _casts(setup: Setup) -> int:
    """Bytes of the copies that autocast makes of all weights of matrix products."""
    return act.AUTOCAST.matmul * (setup.spec.shape.linears + setup.spec.shape.head)


def _communication(setup: Setup, counts: Counts, zero: ZeroSizes | None) -> Iterator[Part]:
    spec = setup.spec
    nccl = NCCL_BUFFERS if spec.gpus > 1 else 0
    if zero is None:
        # DistributedDataParallel copies gradients into buckets of the same size in all.
        copies = 4 * counts.trained if spec.gpus > 1 else 0
        yield Part("communication buckets", copies + nccl, "DDP's copy of the gradients")
        return
    # The buckets, and the flat copy that is reduced.
    bucket = 2 * zero.buffers * zero.bucket + 2 * min(zero.bucket, counts.trained)
    yield Part("communication buckets", bucket + nccl, f"reduce_bucket_size {zero.bucket:,}")
    if counts.stage == 3:
        live = min(spec.shape.parameters, max(zero.live, spec.shape.head))
        yield Part("gathered ZeRO-3 layers", 2 * live, f"at most {zero.live:,} parameters")


def _passes(setup: Setup, counts: Counts) -> Iterator[Part]:
    """Activations and the loss. The loss's buffers are gone when the layers run backwards."""
    spec, shape, precision = setup.spec, setup.spec.shape, counts.precision
    tokens = setup.tokens
    layer = _layer(setup, precision)
    a_layer = act.boundary(shape, precision) * tokens if setup.gradient_checkpointing else layer
    kept = shape.layers * a_layer + act.after_layers(shape, precision) * tokens
    working: float = act.backward_workspace(shape, precision) * tokens
    working += layer if setup.gradient_checkpointing else 0
    working += _attention_working(setup)
    if counts.four_bit:
        working += 2 * shape.hidden * shape.intermediate  # one matrix, unpacked
    if not counts.adapted:
        # The embedding's gradient comes last of all, and is added to the output matrix's.
        working = max(working, precision.norm * shape.head)

    if spec.upstream:
        loss = act.full_loss(shape, precision, tokens)
    else:
        loss = act.chunked_loss(shape, precision, tokens, trained=not counts.adapted)
    if counts.four_bit and precision.autocast:
        loss += precision.matmul * shape.head  # the output matrix, cast
    yield Part("activations", kept + working, f"{tokens:,} tokens")
    yield Part("loss buffers", loss, "all logits" if spec.upstream else "logits in chunks")
    if not counts.adapted:
        yield Part(
            "output matrix's gradient", precision.norm * shape.head, "waits for the embedding's"
        )
    # Autocast's copies of weights last for the forward pass; layers that are computed again
    # make their own.
    casts = _casts(setup) if counts.stage == 0 and not counts.adapted else 0
    late = casts / shape.layers if setup.gradient_checkpointing else casts
    peak = kept + max(loss + casts, working + late)
    shared = kept + loss + working + casts - peak
    yield Part("shared", -shared, "freed before others of these are needed")
    if counts.stage == 0:
        # torch's foreach AdamW works in as much as it steps; piece by piece, so that it finds
        # room in what the passes have freed.
        yield Part("optimizer step", max(0.0, 4 * counts.trained - peak), "AdamW's intermediates")


def _layer(setup: Setup, precision: act.Precision) -> float:
    """Bytes that one layer keeps of a micro-batch."""
    spec = setup.spec
    if spec.mode == "full":
        a_token = act.saved_by_layer(spec.shape, precision)
    else:
        a_token = act.saved_by_adapted_layer(
            spec.shape, precision, spec.targets, spec.lora_r, dropout=spec.lora_dropout > 0
        )
    kept = a_token * setup.tokens
    kept += act.saved_weights(spec.shape, precision, spec.targets, spec.lora_r)
    if spec.upstream:
        kept += act.attention_matrix(spec.shape)[0] * setup.batch_size * spec.max_length**2
    return kept


def _attention_working(setup: Setup) -> float:
    spec = setup.spec
    if not spec.upstream:
        return 0.0
    return act.attention_matrix(spec.shape)[1] * setup.batch_size * spec.max_length**2
