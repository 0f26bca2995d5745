"""Whether a Yuan2 checkpoint can be served with certain settings of vLLM. Pure."""

from __future__ import annotations

from fastchat.errors import SettingsError


def check_fit(
    *, heads: int, tensor_parallel: int, quantization: str | None, drafts: int = 0
) -> None:
    """Refuses what Yuan2's network in vLLM cannot do.

    Args:
        heads: attention heads of the model.
        tensor_parallel: GPUs that share each layer.
        quantization: vLLM's name of a method; None holds the weights as they are.
        drafts: tokens that vLLM would guess ahead.

    Raises:
        SettingsError: names the setting.
    """
    if quantization is not None:
        raise SettingsError(
            f"--quantization is {quantization!r}; Yuan2 is served by vLLM in float32, float16 or"
            " bfloat16 only.",
            hint="Leave it out, or serve int8 and int4 weights with fastchat.serve.model_worker.",
            param="--quantization",
        )
    if heads % tensor_parallel:
        fitting = [count for count in range(1, heads + 1) if heads % count == 0]
        raise SettingsError(
            f"The model's {heads} attention heads cannot be shared among {tensor_parallel} GPUs"
            " evenly.",
            hint=f"Let --num-gpus be one of {', '.join(map(str, fitting))}; more GPUs can serve"
            " as --pipeline-parallel-size.",
            param="--num-gpus",
        )
    if drafts:
        raise SettingsError(
            "Yuan2 is served by vLLM without speculative decoding: the filter's states could not"
            " be taken back.",
            hint="Leave --speculative-config out.",
            param="--speculative-config",
        )


def check_gpus(*, wanted: int, found: int) -> None:
    """Refuses to begin with fewer GPUs than the model is to be spread over.

    Args:
        wanted: GPUs of this machine that the settings ask for.
        found: GPUs that it has.

    Raises:
        SettingsError: there are too few.
    """
    if found < wanted:
        raise SettingsError(
            f"The settings ask for {wanted} GPUs, but this machine has {found}.",
            hint="Lower --num-gpus, or spread the model over several machines with"
            " --distributed-executor-backend ray.",
            param="--num-gpus",
        )
