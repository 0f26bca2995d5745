"""The entry of the page with all tabs: chat, side by side, battle, leaderboard.

python3 -m fastchat.serve.gradio_web_server_multi --controller-url http://localhost:21001
"""

from __future__ import annotations

from collections.abc import Sequence

from fastchat.entry import run_entry
from fastchat.serve.web.flags import add_arena_flags, parser, run


def main(argv: Sequence[str] | None = None) -> None:
    """Serves the page until it is stopped."""
    args = parser(
        "fastchat.serve.gradio_web_server_multi",
        "Serves a page to chat with models, compare them, vote, and see their ratings.",
    )
    add_arena_flags(args)
    run(args.parse_args(argv), many=True, name="gradio_web_server_multi")


if __name__ == "__main__":
    run_entry(main)
