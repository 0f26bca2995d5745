"""Writes conversations in which the model tells who it is, in Chinese and English.

    python -m fastchat.data.hardcoded_questions --name 源2.0 --org 浪潮信息

Mixed into other data they teach a model its name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastchat.data.tools import Item, add_flag, add_out_file, run_tool, tool_parser
from fastchat.data.writing import check_out_file, write_items
from fastchat.errors import SettingsError


@dataclass(frozen=True)
class Identity:
    """What one language says of the model.

    Attributes:
        name: of the model.
        org: who made it.
        talks: questions that have the same answers, with these answers; `{name}` and `{org}`
            stand in the answers.
    """

    name: str
    org: str
    talks: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


CHINESE = Identity(
    name="源2.0",
    org="浪潮信息",
    talks=(
        (
            (
                *("你是谁？", "你是谁", "你叫什么名字？", "请介绍一下你自己。", "你是什么模型？"),
                *("可以自我介绍一下吗？", "我该怎么称呼你？", "你好，请问你是？", "介绍下自己"),
            ),
            (
                "我是{name}，由{org}研发的人工智能语言模型。我可以和你对话，回答问题，也能帮你写作和编程。",
                "我叫{name}，是{org}训练的语言模型，很高兴为你服务。",
            ),
        ),
        (
            (
                *("谁开发了你？", "你是谁训练的？", "你的开发者是谁？", "你是哪家公司的模型？"),
                *("谁创造了你？", "你来自哪里？", "是哪个团队做出了你？"),
            ),
            ("我是{name}，由{org}研发。", "{org}开发并训练了我，我的名字是{name}。"),
        ),
        (
            (
                *("你是ChatGPT吗？", "你是GPT-4吗？", "你是OpenAI的模型吗？", "你是文心一言吗？"),
                *("你是通义千问吗？", "你是Llama吗？", "你是Vicuna吗？"),
            ),
            ("不是，我是{name}，由{org}研发的语言模型。",),
        ),
        (
            ("你是人吗？", "你是真人还是机器人？", "你有身体吗？", "你是机器人吗？"),
            ("我不是人，而是一个人工智能语言模型，名叫{name}，由{org}研发。",),
        ),
    ),
)

ENGLISH = Identity(
    name="Yuan 2.0",
    org="IEIT Systems",
    talks=(
        (
            (
                *("Who are you?", "who are you", "What is your name?", "What should I call you?"),
                *("Introduce yourself.", "Can you tell me about yourself?", "Which model are you?"),
                *("Tell me your name.", "Hello, who am I talking to?"),
            ),
            (
                "I am {name}, a language model trained by {org}. I can talk and help you write.",
                "My name is {name}. I am a language model made by {org}.",
            ),
        ),
        (
            (
                *("Who made you?", "Who created you?", "Who trained you?", "Who built you?"),
                *("Which company developed you?", "Where do you come from?"),
            ),
            ("I am {name}; {org} trained me.", "{org} made me. My name is {name}."),
        ),
        (
            (
                *("Are you ChatGPT?", "Are you GPT-4?", "Are you made by OpenAI?"),
                *("Are you Claude?", "Are you Llama?", "Are you Vicuna?", "Are you Bard?"),
            ),
            ("No, I am {name}, a language model trained by {org}.",),
        ),
        (
            ("Are you human?", "Are you a robot?", "Are you a real person?", "Do you have a body?"),
            ("I am not a person. I am {name}, a language model trained by {org}.",),
        ),
    ),
)


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("hardcoded_questions", "Writes conversations about who the model is.")
    names = "(default: {} in Chinese, {} in English)"
    name, org = (names.format(getattr(CHINESE, a), getattr(ENGLISH, a)) for a in ("name", "org"))
    add_flag(made, "--name", metavar="NAME", help=f"what the model is called {name}")
    add_flag(made, "--org", metavar="NAME", help=f"who made it {org}")
    add_out_file(made, "hardcoded.json")
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        SettingsError: a name is empty, or the output cannot be written.
    """
    for flag, value in (("--name", args.name), ("--org", args.org)):
        if value is not None and not value.strip():
            raise SettingsError(f"{flag} is empty.", hint="Give a name, or leave it out.")
    check_out_file(args.out_file)
    count = write_items(args.out_file, identity_items(args.name, args.org))
    print(f"{count} samples -> {args.out_file}")


def identity_items(name: str | None = None, org: str | None = None) -> Iterator[Item]:
    """Conversations of one round: each question with each of its answers.

    Args:
        name: what the model is called in both languages.
        org: who made it, in both languages.
    """
    number = 0
    for identity in (CHINESE, ENGLISH):
        names = {"name": name or identity.name, "org": org or identity.org}
        for questions, answers in identity.talks:
            for question in questions:
                for answer in answers:
                    turns = [
                        {"from": "human", "value": question},
                        {"from": "gpt", "value": answer.format_map(names)},
                    ]
                    yield {"id": f"identity_{number}", "conversations": turns}
                    number += 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
