"""Yuan2's localized filter in vLLM: its states are kept as those of short convolutions.

A sequence's state is what the next token has to look back at: the last input and the last output
of the first stage. vLLM keeps it in pages beside keys and values, copies it for shared
beginnings, and says in each step whose tokens lie where.

Shapes: T tokens of a step, C channels, H hidden, P tensor-parallel ranks.
"""

import torch
from torch import Tensor, nn
from vllm.compilation.breakable_cudagraph import eager_break_during_capture
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear
from vllm.model_executor.layers.mamba.abstract import MambaBase
from vllm.utils.torch_utils import direct_register_custom_op
from vllm.v1.attention.backends.registry import MambaAttentionBackendEnum
from vllm.v1.attention.backends.short_conv_attn import ShortConvAttentionMetadata

from fastchat.model.configuration_yuan import FILTER_NORM_EPS

# With `from __future__ import annotations` torch could not read the op's signature.

OP = "yuan2_token_before"


class YuanLocalFilter(nn.Module, MambaBase):
    """Each token mixed with the two before it, in two stages.

    The first stage's outputs are split over the ranks and are the second's inputs.

    Args:
        hidden_size: H.
        vllm_config: of the model.
        prefix: the layer's name.
    """

    def __init__(self, hidden_size: int, vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.prefix = prefix
        self.dtype = vllm_config.model_config.dtype
        narrow = hidden_size // 2
        self.conv1 = ColumnParallelLinear(2 * hidden_size, narrow, prefix=f"{prefix}.conv1")
        self.conv2 = RowParallelLinear(2 * narrow, hidden_size, prefix=f"{prefix}.conv2")
        self.output_layernorm = RMSNorm(hidden_size, eps=FILTER_NORM_EPS)
        self.kv_cache = (torch.empty(0), torch.empty(0))
        vllm_config.compilation_config.static_forward_context[prefix] = self

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(T, H) -> (T, H)."""
        narrow, _ = self.conv1(self._pairs(hidden_states, stage=0))  # (T, H / 2P)
        wide, _ = self.conv2(self._pairs(narrow, stage=1))  # (T, H)
        filtered: Tensor = self.output_layernorm(wide + hidden_states)
        return filtered

    def _pairs(self, states: Tensor, stage: int) -> Tensor:
        """Each token's states beside those of the token before it, (T, C) -> (T, 2C)."""
        before = torch.empty_like(states)
        torch.ops.vllm.yuan2_token_before(states, before, self.prefix, stage)
        return torch.stack([before, states], dim=-1).flatten(-2)

    def fill_before(
        self, states: Tensor, before: Tensor, step: ShortConvAttentionMetadata | None, stage: int
    ) -> None:
        """Writes to `before` (T, C) what stands before each token; keeps each sequence's last.

        Decoding sequences come first in a step, one token each; then come those with a prompt.

        Args:
            states: (T, C).
            before: where to write.
            step: whose tokens lie where; None while vLLM measures memory.
            stage: of the filter, 0 or 1.
        """
        if step is None:
            before.zero_()
            return
        kept = self.kv_cache[stage][:, 0]  # (pages, C)
        decodes, rest = step.num_decode_tokens, step.num_prefill_tokens
        if decodes:
            pages = step.state_indices_tensor_d[:decodes, 0].long()
            before[:decodes] = kept[pages]
            kept[pages] = states[:decodes]
        if rest:
            states, before = states[decodes : decodes + rest], before[decodes : decodes + rest]
            pages = step.state_indices_tensor_p.long()
            starts = step.query_start_loc_p[:-1].long()
            ends = step.query_start_loc_p[1:].long() - 1
            # Nothing comes before a text: exactly zero in both stages, not the first one's bias.
            known = step.has_initial_states_p[:, None]
            before[1:] = states[:-1]
            before[starts] = torch.where(known, kept[pages], 0)
            kept[pages] = states[ends]

    def get_state_shape(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """See `MambaBase`; as `state_shapes`."""
        return state_shapes(self.hidden_size, get_tensor_model_parallel_world_size())

    def get_state_dtype(self) -> tuple[torch.dtype, ...]:
        """See `MambaBase`: states have the weights' type."""
        return self.dtype, self.dtype

    @property
    def mamba_type(self) -> MambaAttentionBackendEnum:
        """See `MambaBase`."""
        return MambaAttentionBackendEnum.SHORT_CONV


def state_shapes(hidden_size: int, ranks: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of a sequence's two states: the last input (1, H), the last narrow output (1, H / 2P)."""
    return (1, hidden_size), (1, hidden_size // 2 // ranks)


@eager_break_during_capture
def yuan2_token_before(states: Tensor, before: Tensor, layer: str, stage: int) -> None:
    """The op behind `YuanLocalFilter.fill_before`, which compiled code calls as one step.

    Which tokens belong together changes from step to step; a recording could not know.
    """
    context = get_forward_context()
    steps = context.attn_metadata
    step = None if steps is None else steps[layer]
    context.no_compile_layers[layer].fill_before(states, before, step, stage)


direct_register_custom_op(op_name=OP, op_func=yuan2_token_before, mutates_args=["before"])
