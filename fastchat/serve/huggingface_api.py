"""One prompt, one answer, without a server.

python3 -m fastchat.serve.huggingface_api --model-path PATH --message "你好"
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastchat.engine.from_flags import load_model
from fastchat.entry import run_entry
from fastchat.model_flags import add_model_args, check_model_args
from fastchat.serve.flags import add_sampling_flags

if TYPE_CHECKING:
    from fastchat.engine.served import ServedModel

MAX_NEW_TOKENS = 1024


def parser() -> argparse.ArgumentParser:
    """The flags of the one-shot answer."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.huggingface_api", description="Answers one message and ends."
    )
    add_model_args(found)
    add_sampling_flags(found, max_new_tokens=MAX_NEW_TOKENS)
    found.add_argument("--message", default="Hello! Who are you?")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the question and the answer."""
    args = parser().parse_args(argv)
    check_model_args(args)
    asyncio.run(_answer(load_model(args), args))


async def _answer(served: ServedModel, args: argparse.Namespace) -> None:
    from fastchat.serve.terminal.answering import Wishes, answer

    wishes = Wishes(args.temperature, args.repetition_penalty, args.max_new_tokens)
    messages = [{"role": "user", "content": args.message}]
    user, assistant = served.conversation.roles
    print(f"{user or 'user'}: {args.message}")
    print(f"{assistant or 'assistant'}: ", end="", flush=True)
    try:
        answered = await answer(
            served,
            wishes.params(messages, MAX_NEW_TOKENS),
            lambda text: print(text, end="", flush=True),
        )
    finally:
        await served.engine.close()
    print()
    if answered.stopped:
        raise KeyboardInterrupt
    if args.debug:
        print(f"{answered.tokens} tokens", file=sys.stderr)


if __name__ == "__main__":
    run_entry(main)
