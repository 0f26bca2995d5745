"""The values that `/set` changes. Knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastchat.errors import SettingsError
from fastchat.serve.talking.answer import Sampling


@dataclass(frozen=True, slots=True)
class _Range:
    read: Callable[[str], float]
    low: float
    high: float


_RANGES: Mapping[str, _Range] = {
    "temperature": _Range(float, 0.0, 2.0),
    "top_p": _Range(float, 0.0, 1.0),
    "repetition_penalty": _Range(float, 0.01, 10.0),
    "max_new_tokens": _Range(int, 1, 10**9),
}


@dataclass(slots=True)
class Dials:
    """How answers are sampled; None leaves a value to the model."""

    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None

    def sampling(self) -> Sampling:
        """The values as they are now."""
        return Sampling(self.temperature, self.top_p, self.repetition_penalty, self.max_new_tokens)

    def set(self, text: str) -> None:
        """Sets one: `NAME VALUE`; `NAME default` leaves it to the model.

        Raises:
            SettingsError: an unknown name, or a value out of range.
        """
        name, _, value = text.strip().partition(" ")
        name = name.replace("-", "_")
        if name not in _RANGES:
            raise SettingsError(f"There is no setting {name!r}; there are {', '.join(_RANGES)}.")
        setattr(self, name, None if value.strip() == "default" else _value(name, value.strip()))

    def shown(self) -> str:
        """All of them, one a line."""
        values = {name: getattr(self, name) for name in _RANGES}
        return "\n".join(
            f"{name}: {'the model decides' if value is None else value}"
            for name, value in values.items()
        )


def _value(name: str, text: str) -> float:
    allowed = _RANGES[name]
    try:
        value = allowed.read(text)
    except ValueError:
        value = None
    if value is None or not allowed.low <= value <= allowed.high:
        most = "" if allowed.high >= 10**9 else f" to {allowed.high:g}"
        raise SettingsError(f"{name} is {text!r}; allowed is {allowed.low:g}{most}.")
    return value
