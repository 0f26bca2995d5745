"""Configuration of Yuan 2.0 (2B, 51B, 102B), as published in config.json.

Imports no torch.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from fastchat.errors import UnsupportedModelError

FILTER_NORM_EPS = 1e-6  # fixed in the published network, whatever rms_norm_eps says
FILTER_STATES = 2  # per layer: the filter's last input and the last output of its first stage


@strict
class YuanConfig(PreTrainedConfig):
    """Yuan 2.0's network; the defaults are those of the published 2B models.

    `reset_attention_mask`, `reset_position_ids`, `use_flash_attention`, `use_loss_mask`,
    `causal_mask` and `dropout` are kept as published and have no effect: attention is
    causal, padding is masked, packing follows `position_ids`, and nothing is dropped.

    Raises:
        UnsupportedModelError: the values describe another network that goes by the same
            model type: Yuan2.0-M32 or Yuan 3 (mixture of experts), or shared q and k.
        StrictDataclassError: values of a wrong type, or sizes that do not fit together.
    """

    model_type = "yuan"
    keys_to_ignore_at_inference = ["past_key_values"]  # Trainer extends it as a list
    default_theta = 10_000.0
    base_model_tp_plan = {  # see fastchat.model.parallel_styles
        "layers.*.self_attn": "whole_heads",
        "layers.*.self_attn.lf_gate.conv1": "output_slices",
        "layers.*.self_attn.lf_gate.conv2": "input_slices",
        "layers.*.self_attn.q_proj": "output_slices",
        "layers.*.self_attn.k_proj": "output_slices",
        "layers.*.self_attn.v_proj": "head_output_slices",
        "layers.*.self_attn.o_proj": "head_input_slices",
        "layers.*.mlp.up_proj": "output_slices",
        "layers.*.mlp.gate_proj": "output_slices",
        "layers.*.mlp.down_proj": "input_slices",
    }

    vocab_size: int = 135040
    hidden_size: int = 2048
    intermediate_size: int = 8192
    num_hidden_layers: int = 24
    num_attention_heads: int = 32
    hidden_act: str = "silu"
    max_position_embeddings: int = 8192
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 77185
    bos_token_id: int | None = 77185
    eos_token_id: int | list[int] | None = 77185
    rope_parameters: dict[str, Any] | None = None
    causal_mask: bool = True
    use_flash_attention: bool = False
    reset_attention_mask: bool = True
    reset_position_ids: bool = True
    use_loss_mask: bool = False
    dropout: float | int = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        _refuse_other_networks(kwargs)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Called by transformers once all values have their types.

        Raises:
            TypeError: a size that is not a whole number.
            ValueError: sizes that do not fit together.
        """
        for name in ("hidden_size", "num_attention_heads"):
            if not isinstance(getattr(self, name), int):
                raise TypeError(f"{name} is {getattr(self, name)!r}; a whole number is needed.")
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} over num_attention_heads"
                f" {self.num_attention_heads} is not an even number of dimensions a head."
            )

    @property
    def head_dim(self) -> int:
        """Dimensions of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_key_value_heads(self) -> int:
        """As many as query heads: plain multi-head attention."""
        return self.num_attention_heads

    @property
    def layer_types(self) -> list[str]:
        """Tells transformers' caches that each layer holds keys, values and filter states."""
        return ["hybrid"] * self.num_hidden_layers

    @property
    def number_of_conv_states(self) -> int:
        """How many filter states a layer's cache holds."""
        return FILTER_STATES


def _refuse_other_networks(extra: dict[str, Any]) -> None:
    experts = sorted(
        name for name, value in extra.items() if value and ("moe" in name or "expert" in name)
    )
    if experts:
        raise UnsupportedModelError(
            f"This config has {', '.join(experts)}: it is Yuan2.0-M32 or a Yuan 3 model, a"
            " mixture of experts that uses Yuan 2.0's model type but is another network.",
            hint="Supported are the dense Yuan2 models: 2B, 51B and 102B.",
        )
    if extra.get("use_shareqk"):
        raise UnsupportedModelError(
            "This config has use_shareqk: true, an unpublished variant of Yuan 2.0 that shares"
            " the query and key projections.",
            hint="Supported are the published dense Yuan2 models: 2B, 51B and 102B.",
        )
