"""The settings beside a chat: the system prompt, and how answers are sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from fastchat.serve.talking.answer import Sampling
from fastchat.serve.web.labels import Labels
from fastchat.serve.web.listening import QUICK

PRESETS: Mapping[str, tuple[float, float]] = {
    "precise": (0.2, 0.9),
    "balanced": (0.7, 1.0),
    "creative": (1.0, 1.0),
}
"""Temperature and top-p by name."""

MAX_TOKENS = 1024
_MOST_TOKENS = 8192


def preset_of(temperature: float, top_p: float) -> str:
    """The name of these values; "custom" if they have none."""
    for name, values in PRESETS.items():
        if values == (temperature, top_p):
            return name
    return "custom"


class Controls:
    """The controls, in an accordion.

    Attributes:
        inputs: what `sampling` and `system_of` read, in their order.
    """

    def __init__(self, labels: Labels) -> None:
        make = labels.make
        with make(gr.Accordion, {"label": "settings"}, open=False):
            self._system = make(
                gr.Textbox, {"label": "system", "placeholder": "system_hint"}, lines=2, max_lines=8
            )
            with gr.Row():
                self._preset = make(
                    gr.Dropdown,
                    {"label": "preset", "choices": [*PRESETS, "custom"]},
                    value="balanced",
                    min_width=120,
                )
                self._temperature = make(
                    gr.Slider, {"label": "temperature"}, minimum=0, maximum=1, value=0.7, step=0.1
                )
                self._top_p = make(
                    gr.Slider, {"label": "top_p"}, minimum=0, maximum=1, value=1.0, step=0.1
                )
            with gr.Row():
                self._max_tokens = make(
                    gr.Slider,
                    {"label": "max_tokens"},
                    minimum=16,
                    maximum=_MOST_TOKENS,
                    value=MAX_TOKENS,
                    step=16,
                )
                self._penalty = make(
                    gr.Slider,
                    {"label": "repetition_penalty"},
                    minimum=1,
                    maximum=2,
                    value=1.0,
                    step=0.05,
                )
        self.inputs = [
            self._system,
            self._temperature,
            self._top_p,
            self._max_tokens,
            self._penalty,
        ]
        sliders = [self._temperature, self._top_p]
        self._preset.input(_values, self._preset, sliders, **QUICK)
        for slider in sliders:
            slider.release(preset_of, sliders, self._preset, **QUICK)

    def begin_with(self, system: str, sampling: Sampling) -> dict[Any, Any]:
        """Changes of the controls for a conversation's system text and a model's own values."""
        changes: dict[Any, Any] = {self._system: system}
        if sampling.temperature is not None:
            changes[self._temperature] = sampling.temperature
        if sampling.top_p is not None:
            changes[self._top_p] = sampling.top_p
        if sampling.max_new_tokens is not None:
            changes[self._max_tokens] = sampling.max_new_tokens
        return changes


def _values(preset: str) -> list[Any]:
    return list(PRESETS.get(preset, (gr.skip(), gr.skip())))


def system_of(values: Sequence[Any]) -> str:
    """The system text among the values of `Controls.inputs`."""
    return str(values[0] or "")


def sampling_of(values: Sequence[Any]) -> Sampling:
    """How to sample, from the values of `Controls.inputs`."""
    _, temperature, top_p, max_tokens, penalty = values
    return Sampling(float(temperature), float(top_p), float(penalty), int(max_tokens))
