"""Separator styles as other releases of FastChat number them. Pure.

The numbers travel over the wire. FastChat's last release, 0.2.36, has no LLAMA3 and numbers the
styles behind it one lower than its main branch and this project do.
"""

from __future__ import annotations

import os

from fastchat.prompt_styles import SeparatorStyle

VARIABLE = "FASTCHAT_PEER_STYLES"

_SERVERS = ("python-httpx/", "python/")
"""How the API servers of FastChat name themselves: by the library that asks for them."""


def style_number(style: SeparatorStyle, asker: str) -> int:
    """A style's number for whoever asks.

    Args:
        style: it.
        asker: the User-Agent of the request. Servers of FastChat are taken for its release
            unless FASTCHAT_PEER_STYLES says `main`.
    """
    foreign = asker.lower().startswith(_SERVERS)
    released = os.environ.get(VARIABLE, "0.2.36") != "main"
    if foreign and released and style > SeparatorStyle.LLAMA3:
        return int(style) - 1
    return int(style)
