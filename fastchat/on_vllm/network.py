"""The Yuan 2.0 network out of vLLM's layers: for many requests at once and for many GPUs.

The reference is `fastchat.model.modeling_yuan`. Knows nothing of tokenizers or of serving.

Shapes: T tokens of a step, H hidden, N heads, D = H / N, F feed-forward, P tensor-parallel ranks.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.distributed import get_pp_group, get_tensor_model_parallel_world_size
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.mamba.mamba_utils import get_conv_copy_spec
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.model_executor.models.interfaces import HasInnerState, IsHybrid, SupportsPP
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    PPMissingLayer,
    WeightsMapper,
    make_empty_intermediate_tensors_factory,
    make_layers,
    maybe_prefix,
)
from vllm.sequence import IntermediateTensors

from fastchat.model.configuration_yuan import YuanConfig
from fastchat.on_vllm.fit import check_fit
from fastchat.on_vllm.local_filter import OP, YuanLocalFilter, state_shapes
from fastchat.on_vllm.weights import for_vllm


class YuanAttention(nn.Module):
    """Causal attention; queries and keys from filtered states, values from plain ones."""

    def __init__(self, config: YuanConfig, vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        size, head_dim = config.hidden_size, config.head_dim
        heads = config.num_attention_heads // get_tensor_model_parallel_world_size()
        self.lf_gate = YuanLocalFilter(size, vllm_config, f"{prefix}.lf_gate")
        self.qk_proj = MergedColumnParallelLinear(
            size, [size, size], bias=False, prefix=f"{prefix}.qk_proj"
        )
        self.v_proj = ColumnParallelLinear(size, size, bias=False, prefix=f"{prefix}.v_proj")
        self.o_proj = RowParallelLinear(size, size, bias=False, prefix=f"{prefix}.o_proj")
        self.rotary_emb = get_rope(
            head_dim,
            max_position=config.max_position_embeddings,
            rope_parameters=config.rope_parameters,
        )
        self.attn = Attention(
            heads,
            head_dim,
            head_dim**-0.5,
            num_kv_heads=heads,
            cache_config=vllm_config.cache_config,
            prefix=f"{prefix}.attn",
        )

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        """(T,), (T, H) -> (T, H)."""
        mixed, _ = self.qk_proj(self.lf_gate(hidden_states))  # (T, 2H / P)
        query, key = mixed.chunk(2, dim=-1)
        value, _ = self.v_proj(hidden_states)
        query, key = self.rotary_emb(positions, query.contiguous(), key.contiguous())
        output: Tensor
        output, _ = self.o_proj(self.attn(query, key, value))
        return output


class YuanMLP(nn.Module):
    """Gated feed-forward; the activation is on `up`, the reverse of Llama's."""

    def __init__(self, config: YuanConfig, prefix: str) -> None:
        super().__init__()
        size, wide = config.hidden_size, config.intermediate_size
        self.up_gate_proj = MergedColumnParallelLinear(
            size, [wide, wide], bias=False, prefix=f"{prefix}.up_gate_proj"
        )
        self.down_proj = RowParallelLinear(wide, size, bias=False, prefix=f"{prefix}.down_proj")
        self.act_fn = SiluAndMul()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(T, H) -> (T, H)."""
        both, _ = self.up_gate_proj(hidden_states)  # (T, 2F / P)
        output: Tensor
        output, _ = self.down_proj(self.act_fn(both))
        return output


class YuanDecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward; what they add is added by the norm that follows."""

    def __init__(self, config: YuanConfig, vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        self.self_attn = YuanAttention(config, vllm_config, f"{prefix}.self_attn")
        self.mlp = YuanMLP(config, f"{prefix}.mlp")
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(T,), (T, H), (T, H) -> what the layer adds and what it adds it to, both (T, H)."""
        if residual is None:
            residual = hidden_states
            hidden_states = self.input_layernorm(hidden_states)
        else:
            hidden_states, residual = self.input_layernorm(hidden_states, residual)
        hidden_states = self.self_attn(positions, hidden_states)
        hidden_states, residual = self.post_attention_layernorm(hidden_states, residual)
        return self.mlp(hidden_states), residual


@support_torch_compile(
    dynamic_arg_dims={
        "input_ids": 0,
        "positions": 0,
        "intermediate_tensors": 0,
        "inputs_embeds": 0,
    }
)
class YuanModel(nn.Module):
    """Embedding, this rank's decoder layers and the final norm."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: YuanConfig = vllm_config.model_config.hf_config
        self.config = config
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.start_layer, self.end_layer, self.layers = make_layers(
            config.num_hidden_layers,
            lambda prefix: YuanDecoderLayer(config, vllm_config, prefix),
            prefix=f"{prefix}.layers",
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if not get_pp_group().is_last_rank:
            self.norm = PPMissingLayer()
        self.make_empty_intermediate_tensors = make_empty_intermediate_tensors_factory(
            ["hidden_states", "residual"], config.hidden_size
        )

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """(T,) -> (T, H)."""
        embedded: Tensor = self.embed_tokens(input_ids)
        return embedded

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor | IntermediateTensors:
        """Hidden states (T, H) after the final norm, or what the next rank goes on with."""
        residual: Tensor | None = None
        if not get_pp_group().is_first_rank:
            assert intermediate_tensors is not None
            hidden_states = intermediate_tensors["hidden_states"]
            residual = intermediate_tensors["residual"]
        elif inputs_embeds is None:
            hidden_states = self.embed_tokens(input_ids)
        else:
            hidden_states = inputs_embeds
        for layer in islice(self.layers, self.start_layer, self.end_layer):
            hidden_states, residual = layer(positions, hidden_states, residual)
        if not get_pp_group().is_last_rank:
            return IntermediateTensors({"hidden_states": hidden_states, "residual": residual})
        output: Tensor
        output, _ = self.norm(hidden_states, residual)
        return output


class YuanForCausalLM(nn.Module, HasInnerState, IsHybrid, SupportsPP):
    """Yuan2 with its output matrix, as vLLM calls it.

    Raises:
        SettingsError: settings that this network cannot be served with.
    """

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_stacked={
            ".q_proj": (".qk_proj", 0),
            ".k_proj": (".qk_proj", 1),
            ".up_proj": (".up_gate_proj", 0),
            ".gate_proj": (".up_gate_proj", 1),
        },
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: YuanConfig = vllm_config.model_config.hf_config
        check_fit(
            heads=config.num_attention_heads,
            tensor_parallel=vllm_config.parallel_config.tensor_parallel_size,
            quantization=vllm_config.model_config.quantization,
            drafts=vllm_config.num_speculative_tokens,
        )
        _split_at_the_filter(vllm_config)
        self.config = config
        self.model = YuanModel(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        self.lm_head: nn.Module = PPMissingLayer()
        if get_pp_group().is_last_rank:
            head = ParallelLMHead(
                config.vocab_size, config.hidden_size, prefix=maybe_prefix(prefix, "lm_head")
            )
            tied = config.tie_word_embeddings
            self.lm_head = head.tie_weights(self.model.embed_tokens) if tied else head
        self.logits_processor = LogitsProcessor(config.vocab_size)
        self.make_empty_intermediate_tensors = self.model.make_empty_intermediate_tensors

    @classmethod
    def get_mamba_state_dtype_from_config(cls, vllm_config: VllmConfig) -> tuple[torch.dtype, ...]:
        """Types of the filter's two states."""
        return (vllm_config.model_config.dtype,) * 2

    @classmethod
    def get_mamba_state_shape_from_config(
        cls, vllm_config: VllmConfig
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Shapes of the filter's two states on one rank."""
        return state_shapes(
            vllm_config.model_config.hf_config.hidden_size,
            vllm_config.parallel_config.tensor_parallel_size,
        )

    @classmethod
    def get_mamba_state_copy_func(cls) -> tuple[Any, ...]:
        """How the two states are copied to where a shared beginning ends."""
        return get_conv_copy_spec, get_conv_copy_spec

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """(T,) -> (T, H)."""
        return self.model.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor | IntermediateTensors:
        """See `YuanModel.forward`."""
        output: Tensor | IntermediateTensors = self.model(
            input_ids, positions, intermediate_tensors, inputs_embeds
        )
        return output

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Logits (T, V) where they are sampled from."""
        logits: Tensor | None = self.logits_processor(self.lm_head, hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Takes a published checkpoint's weights; returns the names of those that got any."""
        loaded: set[str] = AutoWeightsLoader(self).load_weights(
            for_vllm(weights, self.config.head_dim), mapper=self.hf_to_vllm_mapper
        )
        return loaded


def _split_at_the_filter(vllm_config: VllmConfig) -> None:
    """Keeps the filter's op out of recorded pieces of the network, as attention is kept out."""
    places = vllm_config.compilation_config.splitting_ops
    name = f"vllm::{OP}"
    if places and name not in places:
        places.append(name)
