"""Makes training data of saved conversations: all the other tools, one after the other.

    python -m fastchat.data.prepare_all --prefix data/sharegpt --model-name-or-path MODEL

reads data/sharegpt_html.json, or data/sharegpt.json where there is none, and writes

    data/sharegpt_clean.json              clean_sharegpt
    data/sharegpt_clean_lang.json         optional_clean: --skip-lang, stammering samples
    data/sharegpt_clean_lang_split.json   split_long_conversation, then filter_wrong_format
    ..._split_train.json, ..._test.json   split_train_test, 99 in a hundred to train on
    data/sharegpt_hardcoded.json          hardcoded_questions
    ..._split_identity.json               merge of the last and of ..._split_train.json

The file to train on is the last. All steps run in this process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from fastchat.data import (
    clean_sharegpt,
    filter_wrong_format,
    hardcoded_questions,
    merge,
    optional_clean,
    split_long_conversation,
    split_train_test,
)
from fastchat.data.language import LANGUAGES
from fastchat.data.tools import add_flag, add_model, run_tool, tool_parser
from fastchat.errors import DataError
from fastchat.flag_types import at_least_one

Step = tuple[ModuleType, list[str]]
"""A tool and its flags."""


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("prepare_all", "Makes training data of saved conversations.")
    what = "PREFIX_html.json or PREFIX.json is read; what is written begins with PREFIX as well"
    add_flag(made, "--prefix", required=True, metavar="PREFIX", help=what)
    add_model(made, "folder of the model to be trained; its tokenizer counts")
    length = "longest conversation, in tokens (default: %(default)s)"
    add_flag(made, "--seq-len", type=at_least_one, default=4096, metavar="N", help=length)
    skip = "language to drop, see optional_clean (default: none)"
    add_flag(made, "--skip-lang", choices=LANGUAGES, metavar="LANG", help=skip)
    add_flag(made, "--drop-words", metavar="FILE", help="see clean_sharegpt")
    add_flag(made, "--name", metavar="NAME", help="what the model is called")
    add_flag(made, "--org", metavar="NAME", help="who made it")
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tools.

    Raises:
        FastChatError: what the step that could not go on has raised.
    """
    for tool, flags in steps(args, _source(args.prefix)):
        print(f"$ python -m {tool.__name__} {' '.join(flags)}", flush=True)
        tool.run(tool.parser().parse_args(flags))


def steps(args: argparse.Namespace, source: Path) -> Iterator[Step]:
    """The tools with their flags, in order."""
    prefix = str(Path(args.prefix).expanduser())
    clean, lang = f"{prefix}_clean.json", f"{prefix}_clean_lang.json"
    stem, hardcoded = f"{prefix}_clean_lang_split", f"{prefix}_hardcoded.json"
    split = f"{stem}.json"
    model = args.model_name_or_path

    yield clean_sharegpt, _files(str(source), clean) + _given("--drop-words", args.drop_words)
    skip = _given("--skip-lang", args.skip_lang)
    yield optional_clean, [*_files(clean, lang), *skip, "--reduce-rep"]
    length = ["--max-length", str(args.seq_len)]
    yield split_long_conversation, [*_files(lang, split), "--model-name-or-path", model, *length]
    yield filter_wrong_format, _files(split, split)
    yield split_train_test, ["--in-file", split, "--ratio", "0.99"]
    names = _given("--name", args.name) + _given("--org", args.org)
    yield hardcoded_questions, ["--out-file", hardcoded, *names]
    train = f"{stem}_train.json"
    yield merge, ["--in-file", train, hardcoded, "--out-file", f"{stem}_identity.json"]


def _source(prefix: str) -> Path:
    candidates = [Path(f"{prefix}{end}").expanduser() for end in ("_html.json", ".json")]
    for path in candidates:
        if path.exists():
            return path
    raise DataError(
        f"There is neither {candidates[0]} nor {candidates[1]}.",
        hint="--prefix is the path of the data without _html.json or .json.",
    )


def _files(in_file: str, out_file: str) -> list[str]:
    return ["--in-file", in_file, "--out-file", out_file]


def _given(flag: str, value: str | None) -> list[str]:
    return [] if value is None else [flag, value]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tools from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
