"""The Yuan 2.0 network (2B, 51B, 102B) for transformers.

Llama's frame with two changes: queries and keys are projected from *locally filtered*
states (two causal convolutions over the two tokens before; Wu et al., "YUAN 2.0", 2023,
arXiv:2311.15786), and the published q and k matrices interleave heads. Knows nothing of
tokenizers or of text.

Shapes: B batch, S new tokens, T all tokens so far, H hidden, N heads, D = H / N, V vocabulary.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.utils import GenerationMixin
from transformers.masking_utils import create_causal_mask, create_recurrent_attention_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import (
    ALL_ATTENTION_FUNCTIONS,
    PreTrainedModel,
)
from transformers.models.llama.modeling_llama import (
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from fastchat.errors import CheckpointError
from fastchat.model.checkpoint_fit import refuse_misfit
from fastchat.model.configuration_yuan import YuanConfig
from fastchat.model.forest import Forest, forest_attention
from fastchat.model.later import register_network
from fastchat.model.learned_loss import OutputMatrix
from fastchat.model.local_filter import YuanLocalFilter, YuanRMSNorm
from fastchat.model.predecessors import (
    Predecessors,
    is_packed,
    parents_of,
    skip_padding,
    split_documents,
)


class YuanAttention(nn.Module):
    """Causal multi-head attention; queries and keys from filtered, values from plain states."""

    def __init__(self, config: YuanConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.scaling = self.head_dim**-0.5
        self.num_key_value_groups = 1
        self.is_causal = True
        size = config.hidden_size
        self.q_proj = nn.Linear(size, size, bias=False)
        self.k_proj = nn.Linear(size, size, bias=False)
        self.v_proj = nn.Linear(size, size, bias=False)
        self.o_proj = nn.Linear(size, size, bias=False)
        self.lf_gate = YuanLocalFilter(config, layer_idx)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        predecessors: Predecessors | None = None,
        past_key_values: Cache | None = None,
        forest: Forest | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """(B, S, H) -> (B, S, H) and, where the kernel has them, weights (B, N, S, T)."""
        filtered = self.lf_gate(hidden_states, predecessors, past_key_values)
        mixed = torch.cat([self.q_proj(filtered), self.k_proj(filtered)], dim=-1)  # (B, S, 2H)
        query, key = rearrange(mixed, "b s (n two d) -> two b n s d", two=2, d=self.head_dim)
        value = rearrange(self.v_proj(hidden_states), "b s (n d) -> b n s d", d=self.head_dim)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # (B, N, T, D)
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        if forest is not None:
            attend = partial(forest_attention, forest=forest)
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs
        )
        return self.o_proj(output.flatten(2).contiguous()), weights  # (B, S, N, D) -> (B, S, H)


class YuanMLP(nn.Module):
    """Gated feed-forward; the activation is on `up`, the reverse of Llama's."""

    def __init__(self, config: YuanConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, S, H) -> (B, S, H)."""
        gated = self.act_fn(self.up_proj(hidden_states)) * self.gate_proj(hidden_states)
        return self.down_proj(gated)


class YuanDecoderLayer(GradientCheckpointingLayer):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: YuanConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = YuanAttention(config, layer_idx)
        self.mlp = YuanMLP(config)
        self.input_layernorm = YuanRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = YuanRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """(B, S, H) -> (B, S, H)."""
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class YuanPreTrainedModel(PreTrainedModel):
    """What all Yuan2 models share: initialisation, loading and saving."""

    config_class = YuanConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["YuanDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": YuanDecoderLayer, "attentions": YuanAttention}

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, but weights that do not fit the network are an error.

        Raises:
            CheckpointError: missing, extra or misshaped weights.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs.setdefault("ignore_mismatched_sizes", True)
        path = str(kwargs.get("pretrained_model_name_or_path", args[0] if args else ""))
        try:
            model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise CheckpointError(
                f"A weight file in {path} is damaged: {error}.",
                hint="Copy or download the checkpoint again.",
            ) from error
        refuse_misfit(path, info, model)
        return (model, info) if wants_info else model


class YuanModel(YuanPreTrainedModel):
    """Embedding, decoder layers and final norm."""

    def __init__(self, config: YuanConfig) -> None:
        super().__init__(config)
        # No padding row: pad is <eod> in the config, and its row has to train.
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            YuanDecoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.norm = YuanRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | dict[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        forest: Forest | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states (B, S, H) after the final norm.

        Args:
            input_ids: (B, S); or `inputs_embeds` (B, S, H).
            attention_mask: (B, T), zero at padding on either side; or transformers' masks
                for compiled generation.
            position_ids: (B, S). Positions that restart at 0 inside a row pack documents:
                attention and filter stay within each. Packing excludes caching.
            past_key_values: keys, values and filter states so far.
            forest: which token is whose parent in a single row (B = 1); gives positions,
                attention and filter. Excludes masks and caching.

        Raises:
            ValueError: inputs that exclude each other.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds, not both and not neither.")
        hidden_states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if forest is not None:
            if attention_mask is not None or past_key_values is not None:
                raise ValueError("A forest excludes an attention mask and a cache.")
            use_cache, position_ids = False, forest.position_ids
        packed = forest is None and past_key_values is None and is_packed(position_ids)
        if packed and isinstance(attention_mask, Tensor) and bool(attention_mask.all()):
            attention_mask = None
        packed = packed and attention_mask is None
        if use_cache and past_key_values is None and not packed:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            past = past_key_values.get_seq_length() if past_key_values is not None else 0
            places = torch.arange(hidden_states.shape[1], device=hidden_states.device)
            position_ids = (places + past)[None]

        masks: dict[str, Tensor | None] = {"full_attention": None, "linear_attention": None}
        if forest is None:
            masks = self._masks(hidden_states, attention_mask, past_key_values, position_ids)
        predecessors = None if forest is None else parents_of(forest)
        if packed:
            predecessors = split_documents(position_ids.expand(hidden_states.shape[0], -1))
        elif masks["linear_attention"] is not None:
            predecessors = skip_padding(masks["linear_attention"])
        position_embeddings = self.rotary_emb(hidden_states, position_ids)
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                attention_mask=masks["full_attention"],
                position_embeddings=position_embeddings,
                predecessors=predecessors,
                position_ids=position_ids,
                past_key_values=past_key_values,
                forest=forest,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states),
            past_key_values=past_key_values if use_cache else None,
        )

    def _masks(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | dict[str, Tensor | None] | None,
        cache: Cache | None,
        position_ids: Tensor,
    ) -> dict[str, Tensor | None]:
        if isinstance(attention_mask, dict):
            return attention_mask
        return {
            "full_attention": create_causal_mask(
                config=self.config,
                inputs_embeds=hidden_states,
                attention_mask=attention_mask,
                past_key_values=cache,
                position_ids=position_ids,
            ),
            "linear_attention": create_recurrent_attention_mask(
                config=self.config,
                inputs_embeds=hidden_states,
                attention_mask=attention_mask,
                past_key_values=cache,
            ),
        }


class YuanForCausalLM(YuanPreTrainedModel, GenerationMixin):
    """Yuan2 with its output matrix: next-token logits and the shifted loss."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: YuanConfig) -> None:
        super().__init__(config)
        self.model = YuanModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = OutputMatrix(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        shift_labels: Tensor | None = None,
        reduction: str = "sum",
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, S, V) and, with labels (B, S), the mean next-token loss.

        Training asks for less: `shift_labels` for the loss without any logits.

        Args:
            labels: aligned with `input_ids`: position t predicts labels[t + 1]; -100 is
                ignored.
            logits_to_keep: how many last positions, or which, get logits; 0 is all.
            shift_labels: (K,) learned tokens, each predicted from the position that
                `logits_to_keep` (K,) names, counted through all rows. The loss is their
                sum over `num_items_in_batch`, if that is given, else their mean.
            reduction: "none" gives each learned token's loss (K,) in place of the sum.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        if shift_labels is not None:
            places = outputs.last_hidden_state.flatten(0, 1).index_select(0, logits_to_keep)
            loss = self.lm_head(places, shift_labels, reduction)
            if reduction == "sum":
                count = kwargs.get("num_items_in_batch")
                loss = loss / (max(1, len(places)) if count is None else count)
            return CausalLMOutputWithPast(loss=loss)
        last = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, last])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; rows may be padded on either side."""
        prompts = inputs if inputs is not None else kwargs.get("input_ids")
        mask = kwargs.get("attention_mask")
        if prompts is None or mask is None or bool(mask[:, -1].all()):
            return super().generate(inputs, *args, **kwargs)
        # Generation reads the logits of the last column, so real tokens have to end there.
        order = mask.argsort(dim=1, stable=True)
        kwargs.pop("input_ids", None)
        kwargs["attention_mask"] = mask.gather(1, order)
        output = super().generate(prompts.gather(1, order), *args, **kwargs)
        sequences = output if isinstance(output, Tensor) else output.sequences
        copies = sequences.shape[0] // prompts.shape[0]
        sequences[:, : prompts.shape[1]] = prompts.repeat_interleave(copies, dim=0)
        return output

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """As in transformers, with the output matrix written even where it is tied.

        The published files hold it so, and other readers look for it.
        """
        if self.config.tie_word_embeddings and not getattr(self, "_hf_peft_config_loaded", False):
            state_dict = dict(self.state_dict() if state_dict is None else state_dict)
            if "model.embed_tokens.weight" in state_dict:
                state_dict["lm_head.weight"] = state_dict["model.embed_tokens.weight"].clone()
        super().save_pretrained(
            save_directory, is_main_process=is_main_process, state_dict=state_dict, **kwargs
        )
        if is_main_process:
            # safetensors writes files that only their owner can read; a worker may be another.
            for weights in Path(save_directory).glob("*.safetensors"):
                shutil.copymode(Path(save_directory) / "config.json", weights)


register_network(YuanModel, YuanForCausalLM)
