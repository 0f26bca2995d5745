"""The network's operations with matrices in 8 or 4 bits, by bitsandbytes; made for GPUs."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastchat.engine.network.torch_ops import TorchOps, in_order
from fastchat.engine.settings import Quantization
from fastchat.errors import SettingsError


class BitsAndBytesOps(TorchOps):
    """See `fastchat.engine.network.yuan.Ops`.

    Args:
        device: to compute on.
        dtype: of states and cache, and of what is not held in fewer bits.
        quantization: int8 (Dettmers et al., 2022, "LLM.int8()"), or int4, which is
            NormalFloat (Dettmers et al., 2023, "QLoRA").

    Raises:
        SettingsError: bitsandbytes is not installed.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, quantization: Quantization
    ) -> None:
        super().__init__(device, dtype)
        self._quantization = quantization
        if importlib.util.find_spec("bitsandbytes") is None:
            raise SettingsError(
                f"{quantization} weights on a GPU need bitsandbytes, which is not installed.",
                hint='Install it: pip install "fastchat-yuan2[train]".',
            )
        # It tells of a cast that it makes, in every product anew.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)

    def matrix(
        self, parts: Sequence[Tensor], row_order: Tensor | None = None, *, fine: bool = False
    ) -> Any:
        """See `Ops.matrix`; those that suffer from 4 bits keep all."""
        if fine and self._quantization == "int4":
            return super().matrix(parts, row_order)
        from bitsandbytes import nn as layers

        nn: Any = layers

        ordered = in_order(parts, row_order).to(self.dtype)
        outputs, inputs = ordered.shape
        if self._quantization == "int8":
            module = nn.Linear8bitLt(inputs, outputs, bias=False, has_fp16_weights=False)
            module.weight = nn.Int8Params(ordered, requires_grad=False, has_fp16_weights=False)
        else:
            module = nn.Linear4bit(
                inputs, outputs, bias=False, compute_dtype=self.dtype, quant_type="nf4"
            )
            module.weight = nn.Params4bit(ordered, requires_grad=False, quant_type="nf4")
        return module.to(self.device).eval()

    def linear(
        self,
        states: Tensor,
        matrix: Any,
        *,
        bias: Tensor | None = None,
        add_to: Tensor | None = None,
    ) -> Tensor:
        """See `Ops.linear`."""
        if isinstance(matrix, Tensor):
            return super().linear(states, matrix, bias=bias, add_to=add_to)
        product: Tensor = matrix(states)
        if bias is not None:
            product = product + bias
        return product if add_to is None else add_to.add_(product)
