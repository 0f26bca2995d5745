"""The loss as a picture, for where no page can be shown."""

from __future__ import annotations

import io
from importlib.util import find_spec

from fastchat.train.report.series import History, series, smooth, thin


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def loss_picture(history: History) -> bytes | None:
    """Training and evaluation loss over steps as PNG; None if no loss was logged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses, evaluations = series(history, "loss"), series(history, "eval_loss")
    if not losses and not evaluations:
        return None
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # becomes what the figure is drawn with
    axes = figure.add_subplot()
    if losses:
        many = len(losses) > 20
        axes.plot(*_columns(thin(losses)), color="#2f6fde", alpha=0.35 if many else 1, lw=1)
        smoothed = thin(smooth(losses, max(1, len(losses) // 30)))
        axes.plot(*_columns(smoothed), color="#2f6fde", lw=1.8, label="training")
    if evaluations:
        axes.plot(
            *_columns(evaluations), color="#d9622b", lw=1.8, marker="o", ms=3.5, label="evaluation"
        )
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(visible=True, color="#00000018")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
