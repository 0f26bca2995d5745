"""Early stopping: what it needs of the other training arguments. Pure but for `callbacks_for`."""

from __future__ import annotations

from typing import Any

from fastchat.errors import SettingsError

_STEPS = 500  # between evaluations, where nobody says; transformers' own for saving


def prepare_stopping(values: dict[str, Any], *, evaluates: bool) -> None:
    """Sets what early stopping needs, where it is asked for: to evaluate and to save in step.

    The best model is loaded at the end, by the evaluation loss, unless the arguments say
    otherwise. Does nothing without --early_stopping_patience.

    Args:
        values: training arguments by name, as they were given; changed.
        evaluates: whether there are data to evaluate on.

    Raises:
        SettingsError: the arguments contradict early stopping.
    """
    patience = values.get("early_stopping_patience")
    threshold = values.get("early_stopping_threshold", 0.0)
    if patience is None:
        if threshold:
            raise _error("--early_stopping_threshold is given without a patience.", "threshold")
        return
    if patience < 1:
        raise _error(
            f"--early_stopping_patience is {patience}; a number of evaluations from 1 on is needed."
        )
    if not threshold >= 0:
        raise _error(
            f"--early_stopping_threshold is {threshold}; a number from 0 on is needed.",
            "threshold",
        )
    if not evaluates:
        raise _error(
            "--early_stopping_patience is given, but there is nothing to evaluate on.",
            hint="Give --eval_data_path, or hold data out with --eval_ratio 0.02.",
        )
    _match_strategies(values)
    values.setdefault("load_best_model_at_end", True)
    values.setdefault("metric_for_best_model", "eval_loss")
    if values["metric_for_best_model"] in ("eval_loss", "loss"):
        values.setdefault("greater_is_better", False)


def _match_strategies(values: dict[str, Any]) -> None:
    """Has the run save when it evaluates; what was not given follows what was."""
    for name in ("eval_strategy", "save_strategy"):
        if values.get(name) == "no":
            raise _error(
                f"--{name} is no, but early stopping looks at evaluations and keeps the best"
                " model.",
                hint=f"Leave --{name} out, or give steps or epoch.",
            )
    saved = values.get("save_strategy")
    evaluated = values.setdefault(
        "eval_strategy", saved if saved in ("steps", "epoch") else "steps"
    )
    saved = values.setdefault("save_strategy", evaluated)
    if saved not in ("best", evaluated):
        raise _error(
            f"--save_strategy is {saved} and --eval_strategy is {evaluated}, but early stopping"
            " keeps the best model, so it has to be saved when it was evaluated.",
            hint="Give both the same value, or --save_strategy best.",
        )
    if evaluated == "steps":
        _match_steps(values)


def _match_steps(values: dict[str, Any]) -> None:
    every = values.setdefault("eval_steps", values.get("save_steps", _STEPS))
    saved = values.setdefault("save_steps", every)
    if values["save_strategy"] == "steps" and every >= 1 and saved >= 1 and saved % every:
        raise _error(
            f"--save_steps is {saved:g} and --eval_steps is {every:g}; with early stopping the"
            " first has to be a multiple of the second.",
        )


def _error(message: str, about: str = "patience", hint: str | None = None) -> SettingsError:
    return SettingsError(message, hint=hint, param=f"early_stopping_{about}")


def callbacks_for(args: Any) -> list[Any]:
    """Transformers' callback that stops a run early, where it is asked for.

    Args:
        args: `TrainingArguments`, made of values that `prepare_stopping` has seen.
    """
    if args.early_stopping_patience is None:
        return []
    from transformers import EarlyStoppingCallback

    return [EarlyStoppingCallback(args.early_stopping_patience, args.early_stopping_threshold)]
