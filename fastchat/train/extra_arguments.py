"""Training arguments that transformers lacks, or has with another default.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastchat.train.fields import flag_field


@dataclass(kw_only=True)
class ExtraTrainingArguments:
    """This project's own fields of `TrainingArguments`."""

    cache_dir: str | None = flag_field("Folder for models that are fetched from the hub.")
    model_max_length: int = flag_field(
        "Longest row in tokens; see also fastchat.data.validate.", 512
    )
    optim: str = flag_field("The optimizer; any name that transformers knows.", "adamw_torch")
    ddp_find_unused_parameters: bool | None = flag_field(
        "Look for parameters without a gradient in distributed runs; Yuan2 has none.", False
    )
    flash_attn: bool = flag_field("Use the flash-attention kernels (CUDA only).", False)
    peak_tflops: float | None = flag_field(
        "The best rate of one device, in TFLOP/s, to take MFU against; known GPUs need none."
    )
    sample_generations: int = flag_field(
        "How many conversations to answer at the start, at every evaluation and at the end,"
        " to see the answers change; they are taken from the evaluation data where there are any.",
        0,
    )
    early_stopping_patience: int | None = flag_field(
        "Stop after this many evaluations without a lower evaluation loss."
    )
    early_stopping_threshold: float = flag_field(
        "By how much the evaluation loss has to fall to count as lower.", 0.0
    )
