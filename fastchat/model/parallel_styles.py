"""How Yuan2's layers are split over processes: transformers' tensor-parallel plan, by heads.

The published q and k matrices interleave heads: block 2i of the two, one behind the other,
is the query of head i, block 2i + 1 its key. So an equal slice of q_proj and one of k_proj
hold whole heads, but not neighbouring ones: of R processes each gets N / 2R heads out of the
lower half and as many out of the upper. The rows of v_proj and the columns of o_proj are
regrouped to match when they are read, and put back when they are saved.

The filter is split by its narrow channels, the feed-forward part by its wide ones, embedding
and output matrix by the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import Placement, _StridedShard
from transformers.distributed.parallel_utils import (
    ALL_PARALLEL_STYLES,
    _AllReduceBackward,
    _AllReduceForward,
)
from transformers.distributed.tensor_parallel import TensorParallelLayer

from fastchat.errors import SettingsError

_HALVES = 2
"""Slices that a process's heads come in: one of q_proj's, one of k_proj's."""


class _Slices(TensorParallelLayer):
    """A module that computes with its process's slice of the weights.

    Args:
        dim: of the weight that is cut.
        pieces: slices that each process gets, from as many equal parts of the weight.
    """

    def __init__(self, dim: int, pieces: int = 1) -> None:
        self._placement: Placement = (
            Shard(dim) if pieces == 1 else _StridedShard(dim, split_factor=pieces)
        )

    def should_use_local_tensors(self, module: nn.Module) -> bool:
        """Always: no operation sees more than its slice."""
        return True

    def shard_param(self, module: nn.Module, param: str, mesh: DeviceMesh) -> None:
        """Cuts a parameter that has no numbers yet."""
        whole = module._parameters[param]
        assert whole is not None
        split = distribute_tensor(whole, mesh, [self._placement_of(param)], src_data_rank=None)
        module._parameters[param] = nn.Parameter(split, requires_grad=whole.requires_grad)

    def _placement_of(self, param: str) -> Placement:
        return self._placement


class OutputSlices(_Slices):
    """Each process computes some of the outputs."""

    def __init__(self, pieces: int = 1) -> None:
        super().__init__(0, pieces)

    def transform_inputs_pre_forward(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], mesh: DeviceMesh
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Inputs are whole; each process's outputs tell a part of their gradient."""
        return (_AllReduceBackward.apply(args[0], _group(mesh)), *args[1:]), kwargs


class InputSlices(_Slices):
    """Each process reads some of the inputs; the results are summed, and the bias added once."""

    def __init__(self, pieces: int = 1) -> None:
        super().__init__(1, pieces)

    def context_around_forward(
        self, module: nn.Module, mesh: DeviceMesh
    ) -> AbstractContextManager[None]:
        """Leaves the bias out of the processes' own sums."""
        return self._without_bias(module, super().context_around_forward(module, mesh))

    def transform_output_post_forward(
        self, module: nn.Module, output: Tensor, mesh: DeviceMesh
    ) -> Tensor:
        """Adds up the processes' sums."""
        summed: Tensor = _AllReduceForward.apply(output, _group(mesh))
        bias = module._parameters["bias"]
        if bias is None:
            return summed
        channels = [-1, *[1] * (summed.dim() - 2)]  # (B, C, ...)
        return summed + bias.to_local().view(channels)  # type: ignore[attr-defined]

    def _placement_of(self, param: str) -> Placement:
        return Replicate() if param == "bias" else self._placement

    @contextmanager
    def _without_bias(
        self, module: nn.Module, inside: AbstractContextManager[None]
    ) -> Iterator[None]:
        with inside:
            bias, module._parameters["bias"] = module._parameters["bias"], None
            try:
                yield
            finally:
                module._parameters["bias"] = bias


class WholeHeads(TensorParallelLayer):
    """Attention as it is, for a number of processes that its heads can be shared out to."""

    def install_forward(self, module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        """Leaves the module alone.

        Raises:
            SettingsError: heads cannot be shared out evenly; names the numbers that will do.
        """
        heads: int = module.config.num_attention_heads  # type: ignore[union-attr,assignment]
        refuse_uneven_heads(heads, mesh.size())
        return module


def refuse_uneven_heads(heads: int, processes: int) -> None:
    """Refuses a number of processes that heads cannot be shared out to.

    Raises:
        SettingsError: names the numbers that will do.
    """
    if heads % (_HALVES * processes):
        half = heads // _HALVES if heads % _HALVES == 0 else 1
        fits = [str(count) for count in range(2, half + 1) if half % count == 0]
        raise SettingsError(
            f"The model's {heads} attention heads cannot be split over {processes} processes: each"
            " takes as many out of the lower half of the heads as out of the upper.",
            hint=f"Use {' or '.join(fits)} processes." if fits else "Use one process.",
            param="tp_size",
        )


def register_parallel_styles() -> None:
    """Makes the styles of `YuanConfig.base_model_tp_plan` known to transformers."""
    for name, style in {
        "whole_heads": WholeHeads(),
        "output_slices": OutputSlices(),
        "input_slices": InputSlices(),
        "head_output_slices": OutputSlices(_HALVES),
        "head_input_slices": InputSlices(_HALVES),
    }.items():
        ALL_PARALLEL_STYLES.register(name, style)


def _group(mesh: DeviceMesh) -> Any:
    return mesh.get_group() if mesh.ndim == 1 else mesh.get_group("tp")
