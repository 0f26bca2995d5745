"""Who a visitor of the page is."""

from __future__ import annotations

from typing import Any

import gradio as gr

from fastchat.serve.web.desk import Desk, Session


def greet(desk: Desk, session: Session, request: gr.Request, browser: Any = None) -> None:
    """Notes who works in a pane: the login's name or the address, and the tab.

    Args:
        desk: says whether a proxy in front of the page is to be believed.
        session: of the pane.
        request: of the event.
        browser: the browser's own secret name, if the pane keeps conversations.
    """
    session.visitor = request.session_hash or ""
    session.ip = _address(request, behind_proxy=desk.behind_proxy)
    session.person = request.username or session.ip or session.visitor
    if browser:
        session.owner = owner_of(request, browser)


def owner_of(request: gr.Request, browser: Any) -> str:
    """Whose history a visitor sees: the login's, else the browser's own."""
    return f"user:{request.username}" if request.username else f"browser:{browser}"


def _address(request: gr.Request, *, behind_proxy: bool) -> str:
    # Anybody can send the header; only a proxy's word counts.
    forwarded = request.headers.get("x-forwarded-for", "") if behind_proxy else ""
    client = request.client
    return forwarded.rpartition(",")[2].strip() or (client.host if client else "")
