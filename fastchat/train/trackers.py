"""Which trackers a run reports to: TensorBoard's files unless something else is asked for. Pure."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from fastchat.errors import SettingsError

_PACKAGES = {
    "azure_ml": ("azureml", "azureml-core"),
    "clearml": ("clearml", "clearml"),
    "codecarbon": ("codecarbon", "codecarbon"),
    "comet_ml": ("comet_ml", "comet-ml"),
    "dagshub": ("dagshub", "dagshub"),
    "dvclive": ("dvclive", "dvclive"),
    "flyte": ("flytekit", "flytekit"),
    "mlflow": ("mlflow", "mlflow"),
    "swanlab": ("swanlab", "swanlab"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "trackio": ("trackio", "trackio"),
    "wandb": ("wandb", "wandb"),
}
"""Tracker -> the module that it needs, and what to install for it."""


def _installed(module: str) -> bool:
    return find_spec(module) is not None


def choose_trackers(
    values: dict[str, Any], *, installed: Callable[[str], bool] = _installed
) -> None:
    """Fills in `report_to`, or checks what was given; changes nothing else.

    Args:
        values: training arguments by name; changed.
        installed: whether a module can be imported.

    Raises:
        SettingsError: an unknown tracker, or one whose package is not installed.
    """
    asked = values.get("report_to")
    if asked is None:
        values["report_to"] = ["tensorboard"] if installed("tensorboard") else ["none"]
        return
    names = [asked] if isinstance(asked, str) else list(asked)
    if len(names) == 1 and names[0] in ("none", "all"):
        return
    for name in names:
        if name not in _PACKAGES:
            raise SettingsError(
                f"--report_to {name} is no tracker; known are {', '.join(_PACKAGES)},"
                " and, alone, all and none.",
                param="report_to",
            )
        module, package = _PACKAGES[name]
        if not installed(module):
            raise SettingsError(
                f"--report_to {name} needs a package that is not installed.",
                hint=f"Run `pip install {package}`, or leave {name} out.",
                param="report_to",
            )
