"""Components whose texts follow the language of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from fastchat.serve.web.words import LANGUAGES, say, table


class Labels:
    """Makes components with texts, and changes the texts of all of them.

    A page comes in the language of the browser by itself; `switch` is for another one.

    Attributes:
        i18n: the texts, for Gradio.
    """

    def __init__(self) -> None:
        self.i18n = gr.I18n(**{language: table(language) for language in LANGUAGES})
        self._made: list[tuple[gr.blocks.Block, Mapping[str, str | list[str]]]] = []

    def make(self, kind: type[Any], texts: Mapping[str, str | list[str]], **more: Any) -> Any:
        """Makes a component.

        Args:
            kind: the component's class.
            texts: from its properties to keys of `words`; a list of keys is for `choices`.
            more: its other properties.
        """
        shown = {name: self._at_first(key) for name, key in texts.items()}
        component = kind(**shown, **more)
        self._made.append((component, texts))
        return component

    def _at_first(self, key: str | list[str]) -> Any:
        return self.i18n(key) if isinstance(key, str) else _in("en", key)

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """What `switch` changes."""
        return [component for component, _ in self._made]

    @property
    def choosers(self) -> list[Any]:
        """Those with choices, whose values `switch` has to be told."""
        return [component for component, texts in self._made if "choices" in texts]

    def switch(self, language: str, chosen: Sequence[Any] | None = None) -> list[Any]:
        """Changes for all components, in the order of `outputs`.

        Args:
            language: the new one.
            chosen: the values of `choosers`; those that they start with by default. A browser
                forgets which choice was made when the choices' texts change.
        """
        values = iter(chosen or [each.value for each in self.choosers])
        changes = []
        for _, texts in self._made:
            change = {name: _in(language, key) for name, key in texts.items()}
            if "choices" in texts:
                change["value"] = next(values)
            changes.append(gr.update(**change))
        return changes


def _in(language: str, key: str | list[str]) -> Any:
    if isinstance(key, str):
        return say(language, key)
    return [(say(language, each), each) for each in key]
