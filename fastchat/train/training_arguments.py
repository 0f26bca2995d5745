"""`TrainingArguments`: transformers', with this project's own fields and defaults.

Importing this module loads transformers and torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import transformers

from fastchat.train.extra_arguments import ExtraTrainingArguments


@dataclass(kw_only=True)
class TrainingArguments(ExtraTrainingArguments, transformers.TrainingArguments):
    """All that steers a training run."""
