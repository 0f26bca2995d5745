"""The secret that workers share with their controller. Imports nothing heavy."""

from __future__ import annotations

import hmac
import os

VARIABLE = "FASTCHAT_CONTROLLER_TOKEN"


def controller_token() -> str:
    """The secret, which comes by the environment only; "" for none."""
    return os.environ.get(VARIABLE, "").strip()


def bearer(header: str) -> str:
    """The token of an Authorization header; "" if it holds none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def same_secret(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell how much of them is.

    Args:
        given: as it came in a header, where bytes are decoded as Latin-1.
        expected: as it was set.
    """
    return hmac.compare_digest(given.encode("latin-1", "replace"), expected.encode())
