"""A chat in the terminal that loads the model itself: parses flags, then runs `terminal`.

python3 -m fastchat.serve.cli --model-path PATH
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastchat.engine.from_flags import load_model
from fastchat.entry import run_entry
from fastchat.model_flags import add_model_args, check_model_args
from fastchat.serve.flags import add_sampling_flags

if TYPE_CHECKING:
    from fastchat.engine.served import ServedModel
    from fastchat.serve.terminal.answering import Answered
    from fastchat.serve.terminal.styles import ChatStyle

MAX_NEW_TOKENS = 512


def parser() -> argparse.ArgumentParser:
    """The flags of the terminal chat."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.cli", description="Loads a model and chats with it in the terminal."
    )
    add_model_args(found)
    add = found.add_argument
    add("--conv-template", help="conversation template; the model's own if unset")
    add("--conv-system-msg", help="system message")
    add_sampling_flags(found, max_new_tokens=MAX_NEW_TOKENS)
    add("--no-history", action="store_true", help="answer each question by itself")
    add(
        "--style",
        choices=("simple", "rich", "programmatic"),
        default="simple",
        help="rich shows Markdown; programmatic marks every message for another program",
    )
    add("--multiline", action="store_true", help="inputs of several lines")
    add("--mouse", action="store_true", help="rich style: the mouse works in the input line")
    add("--judge-sent-end", action="store_true", help=argparse.SUPPRESS)
    return found


def chat_style(args: argparse.Namespace, *, tty: bool) -> ChatStyle:
    """The style that the flags name; plain where there is no terminal."""
    from fastchat.serve.terminal.commands import ALL_COMMANDS
    from fastchat.serve.terminal.styles import PlainStyle, ProgrammaticStyle, RichStyle

    if args.style == "programmatic":
        return ProgrammaticStyle()
    if args.style == "rich" and tty:
        return RichStyle(ALL_COMMANDS, multiline=args.multiline, mouse=args.mouse)
    return PlainStyle(named=tty, multiline=args.multiline and tty)


def main(argv: Sequence[str] | None = None) -> None:
    """Chats until the person ends it."""
    args = parser().parse_args(argv)
    check_model_args(args)
    if args.judge_sent_end:
        print("warning: --judge-sent-end has no effect.", file=sys.stderr)
    chat(load_model(args, conv_template=args.conv_template), args)


def chat(served: ServedModel, args: argparse.Namespace) -> None:
    """Chats with a loaded model, which is closed at the end."""
    from fastchat.serve.terminal.answering import Wishes, answer
    from fastchat.serve.terminal.commands import ALL_COMMANDS, COMMANDS
    from fastchat.serve.terminal.dialogue import Dialogue
    from fastchat.serve.terminal.loop import Chat
    from fastchat.serve.terminal.sampling import Dials

    dials = Dials(args.temperature, None, args.repetition_penalty, args.max_new_tokens)
    tty = sys.stdin.isatty() and sys.stdout.isatty()
    with asyncio.Runner() as runner:

        def answering(messages: list[dict[str, str]], write: Callable[[str], None]) -> Answered:
            wishes = Wishes(
                dials.temperature, dials.repetition_penalty, dials.max_new_tokens, dials.top_p
            )
            return runner.run(answer(served, wishes.params(messages, MAX_NEW_TOKENS), write))

        try:
            Chat(
                Dialogue(served.conversation, args.conv_system_msg),
                chat_style(args, tty=tty),
                answering,
                keep_history=not args.no_history,
                forgiving=tty or args.style == "programmatic",
                debug=args.debug,
                # What another program sends is FastChat's; it may well begin with a slash.
                commands=COMMANDS if args.style == "programmatic" else ALL_COMMANDS,
                dials=dials,
            ).run()
        finally:
            runner.run(served.engine.close())


if __name__ == "__main__":
    run_entry(main)
