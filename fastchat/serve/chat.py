"""A chat in the terminal with a server, or with a model that it loads itself.

fastchat chat
fastchat chat --url http://localhost:8000/v1 --model yuan2 "Who are you?"
cat notes.txt | fastchat chat "Summarise this"
fastchat chat --local MODEL
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from fastchat.entry import INTERRUPTED, run_entry
from fastchat.errors import SettingsError, WorkerUnavailableError
from fastchat.flag_types import at_least_one

if TYPE_CHECKING:
    from fastchat.serve.terminal.answering import Answered
    from fastchat.serve.terminal.loop import Answering
    from fastchat.serve.terminal.sampling import Dials
    from fastchat.serve.terminal.styles import ChatStyle

URL = "http://localhost:8000/v1"


def parser() -> argparse.ArgumentParser:
    """The flags of the chat."""
    found = argparse.ArgumentParser(
        prog="fastchat chat",
        description="Chats with a model in the terminal: one that an OpenAI-compatible server"
        " serves, or one that --local names. With a question, or with input from a pipe, it"
        " answers once.",
        epilog="With --local, the flags of python3 -m fastchat.serve.cli that say how a model is"
        " loaded work too, such as --device and --dtype.",
    )
    add = found.add_argument
    add("question", nargs="*", help="a question; input from a pipe is added to it")
    add("--url", default=os.environ.get("FASTCHAT_URL", URL), help="the server's API")
    add("--model", help="a model of the server; its first one if unset")
    add(
        "--api-key",
        default=os.environ.get("FASTCHAT_API_KEY") or os.environ.get("OPENAI_API_KEY", ""),
        help="FASTCHAT_API_KEY or OPENAI_API_KEY in the environment",
    )
    add("--local", "--model-path", metavar="MODEL", help="load this model in place of a server")
    add("--system", help="system message")
    add("--temperature", type=float)
    add("--top-p", type=float)
    add("--repetition-penalty", type=float)
    add("--max-new-tokens", type=at_least_one)
    add("--json", action="store_true", help="answers as JSON, one object a line")
    add("--plain", action="store_true", help="no Markdown, no colours")
    add("--multiline", action="store_true", help="Enter makes a new line, Esc Enter sends")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Answers once, or chats until the person ends it."""
    args, more = parser().parse_known_args(argv)
    if more and args.local is None:
        parser().error(f"unrecognized arguments: {' '.join(more)}")
    question = piped(" ".join(args.question), sys.stdin)
    with ExitStack() as leaving:
        talk = _local(args, more, leaving) if args.local else _remote(args, leaving)
        if question is None:
            _chat(args, *talk)
        else:
            _answer_once(args, question, *talk)


def piped(question: str, source: object) -> str | None:
    """What is asked once: the question, with the input of a pipe below it; None for a chat.

    Raises:
        SettingsError: the pipe holds nothing, and no question was given.
    """
    assert hasattr(source, "isatty")
    assert hasattr(source, "read")
    if source.isatty():
        return question or None
    text = str(source.read()).strip("\n")
    both = "\n\n".join(part for part in (question, text) if part.strip())
    if not both:
        raise SettingsError("There is no question: neither an argument nor input from the pipe.")
    return both


def _dials(args: argparse.Namespace) -> Dials:
    from fastchat.serve.terminal.sampling import Dials

    return Dials(args.temperature, args.top_p, args.repetition_penalty, args.max_new_tokens)


def _remote(args: argparse.Namespace, leaving: ExitStack) -> tuple[str, Dials, Answering]:
    from fastchat.protocol.openai_api_protocol import random_id
    from fastchat.serve.talking.answer import Question
    from fastchat.serve.talking.openai_server import OpenAIBackend, OpenAIServer
    from fastchat.serve.terminal.answering import answer_from

    runner = leaving.enter_context(asyncio.Runner())
    backend = OpenAIBackend(OpenAIServer(args.url, args.api_key))
    leaving.callback(lambda: runner.run(backend.close()))
    dials = _dials(args)
    try:
        models = runner.run(backend.models())
    except WorkerUnavailableError as error:
        error.hint = (
            "Start one (fastchat api), name another with --url, or load a model with"
            " --local MODEL. `fastchat demo` shows all of it with a tiny model."
        )
        raise
    model = args.model or (models[0] if models else None)
    if model is None:
        raise WorkerUnavailableError(f"The server at {args.url} serves no model right now.")

    def answering(messages: list[dict[str, str]], write: Callable[[str], None]) -> Answered:
        asked = Question(model, messages, dials.sampling(), random_id("req-"))
        return runner.run(answer_from(backend, asked, write))

    return model, dials, answering


def _local(
    args: argparse.Namespace, more: Sequence[str], leaving: ExitStack
) -> tuple[str, Dials, Answering]:
    from fastchat.engine.from_flags import load_model
    from fastchat.model_flags import add_model_args, check_model_args
    from fastchat.serve.terminal.answering import Wishes, answer

    flags = argparse.ArgumentParser(prog="fastchat chat --local")
    add_model_args(flags)
    model_args = flags.parse_args(["--model-path", args.local, *more])
    check_model_args(model_args)
    served = load_model(model_args)
    runner = leaving.enter_context(asyncio.Runner())
    leaving.callback(lambda: runner.run(served.engine.close()))
    dials = _dials(args)

    def answering(messages: list[dict[str, str]], write: Callable[[str], None]) -> Answered:
        wishes = Wishes(
            dials.temperature, dials.repetition_penalty, dials.max_new_tokens, dials.top_p
        )
        return runner.run(answer(served, wishes.params(messages, 512), write))

    return Path(args.local).name, dials, answering


def _answer_once(
    args: argparse.Namespace, question: str, model: str, _: Dials, answering: Answering
) -> None:
    messages = [{"role": "user", "content": question}]
    if args.system:
        messages.insert(0, {"role": "system", "content": args.system})
    show = sys.stdout.isatty() and not args.json and not args.plain
    style = _rich(args) if show else None
    if style is not None:
        style.begin(model)
    write = style.write if style else (_nothing if args.json else _print)
    try:
        answered = answering(messages, write)
    finally:
        if style is not None:
            style.end()
        elif not args.json:
            print(flush=True)
    if args.json:
        print(_as_json(model, answered), flush=True)
    if answered.stopped:
        sys.exit(INTERRUPTED)


def _chat(args: argparse.Namespace, model: str, dials: Dials, answering: Answering) -> None:
    from fastchat.conversation import get_conv_template
    from fastchat.serve.terminal.commands import ALL_COMMANDS
    from fastchat.serve.terminal.dialogue import Dialogue
    from fastchat.serve.terminal.loop import Chat
    from fastchat.serve.terminal.styles import PlainStyle

    plain = args.plain or args.json or not sys.stdout.isatty()
    style: ChatStyle = PlainStyle(named=not args.json) if plain else _rich(args)
    asking = answering
    if args.json:

        def asking(messages: list[dict[str, str]], write: Callable[[str], None]) -> Answered:
            answered = answering(messages, _nothing)
            write(_as_json(model, answered))
            return answered

    style.say(f"{model}. /help shows the commands, /exit ends the chat.")
    Chat(
        Dialogue(get_conv_template("yuan2"), args.system),
        style,
        asking,
        debug=not args.json,
        commands=ALL_COMMANDS,
        dials=dials,
    ).run()


def _rich(args: argparse.Namespace) -> ChatStyle:
    from fastchat.serve.terminal.commands import ALL_COMMANDS
    from fastchat.serve.terminal.styles import RichStyle

    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return RichStyle(
        ALL_COMMANDS, multiline=args.multiline, history=state / "fastchat" / "chat-history"
    )


def _as_json(model: str, answered: Answered) -> str:
    stats = answered.answer.stats() if answered.answer else {}
    return json.dumps({"model": model, "text": answered.text, **stats}, ensure_ascii=False)


def _print(text: str) -> None:
    print(text, end="", flush=True)


def _nothing(_: str) -> None:
    return


if __name__ == "__main__":
    run_entry(main)
