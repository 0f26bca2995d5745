"""The chat page's entry: parses flags, then serves `web.page`.

python3 -m fastchat.serve.gradio_web_server --controller-url http://localhost:21001
"""

from __future__ import annotations

from collections.abc import Sequence

from fastchat.entry import run_entry
from fastchat.serve.web.flags import parser, run


def main(argv: Sequence[str] | None = None) -> None:
    """Serves the page until it is stopped."""
    args = parser("fastchat.serve.gradio_web_server", "Serves a page to chat with models.")
    run(args.parse_args(argv), many=False, name="gradio_web_server")


if __name__ == "__main__":
    run_entry(main)
