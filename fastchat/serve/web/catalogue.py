"""Which models the page offers, and what it says of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastchat.errors import FastChatError
from fastchat.model_descriptions import model_info
from fastchat.serve.talking.answer import Sampling
from fastchat.serve.talking.backend import Backend
from fastchat.serve.talking.registered import ApiModel

_FRESH_S = 5.0


class Catalogue:
    """The models behind a backend.

    Args:
        backend: tells their names.
        api_models: what the register file says of some of them.
        reload: ask again whenever a page is loaded, in place of once.
    """

    def __init__(self, backend: Backend, api_models: Sequence[ApiModel], *, reload: bool) -> None:
        self._backend = backend
        self._api_models = {model.name: model for model in api_models}
        self._reload = reload
        self._names: list[str] | None = None
        self._asked_s = float("-inf")
        self.trouble = ""

    async def names(self, *, again: bool = False) -> list[str]:
        """The models, battle-only ones included; `trouble` says why there are none.

        An empty list is never kept: it is asked for again.
        """
        stale = time.monotonic() - self._asked_s > _FRESH_S
        if again or not self._names or (self._reload and stale):
            try:
                self._names = await self._backend.models()
                self.trouble = ""
            except FastChatError as error:
                self._names = self._names or []
                self.trouble = str(error)
            self._asked_s = time.monotonic()
        return list(self._names)

    async def open_names(self, *, again: bool = False) -> list[str]:
        """The models that a visitor may choose by name."""
        names = await self.names(again=again)
        return [name for name in names if not self._is_secret(name)]

    def _is_secret(self, name: str) -> bool:
        return name in self._api_models and self._api_models[name].anony_only

    def description(self, name: str) -> str:
        """A model in a line of Markdown; "" if nothing is known of it."""
        if name not in model_info:
            return ""
        info = model_info[name]
        title = f"[{info.simple_name}]({info.link})" if info.link else info.simple_name
        return f"**{title}**: {info.description}"

    def recommended(self, name: str) -> tuple[str, Sampling]:
        """The system text and the sampling that the register file gives for a model."""
        model = self._api_models.get(name)
        return (model.system, model.recommended) if model else ("", Sampling())
