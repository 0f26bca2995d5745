"""Command lines of the trainers, parsed without torch.

Flags come from dataclass fields: this project's own, and those of the installed
transformers' `TrainingArguments`, whose source is read as text because importing it takes
seconds. `--under_score` and `--dash-spelled` names are the same, booleans take a value or
stand alone, abbreviations work, and an unknown name is an error.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from fastchat.errors import SettingsError

_TRUE = frozenset({"true", "yes", "y", "t", "1", "on"})
_FALSE = frozenset({"false", "no", "n", "f", "0", "off"})


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    Attributes:
        name: with underscores.
        convert: from the text on the command line.
        many: takes one value or more.
        single: where `many`, one value stays a value and does not become a list.
        bare: may stand alone, and then means true.
        mapping: a recipe may give a map; where `convert` makes none, it is handed on as JSON.
        required: has to be given.
        choices: the values allowed; None allows all.
        default: as shown in the help; None shows nothing.
        help: one or two sentences.
        hidden: left out of the help.
    """

    name: str
    convert: Callable[[str], object]
    many: bool = False
    single: bool = False
    bare: bool = False
    mapping: bool = False
    required: bool = False
    choices: tuple[str, ...] | None = None
    default: str | None = None
    help: str = ""
    hidden: bool = False


@dataclass(slots=True)
class FlagGroup:
    """Flags under one heading; their values are collected apart from other groups'."""

    title: str
    flags: dict[str, Flag] = field(default_factory=dict)


def truth(text: str) -> bool:
    """Reads a boolean in any usual spelling."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def truth_or_text(text: str) -> bool | str:
    """A boolean where the text spells one out, else the text."""
    return truth(text) if text.lower() in ("true", "false") else text


def json_object(text: str) -> dict[str, Any]:
    """Reads a map, written as JSON."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return value


_METAVARS: Mapping[Callable[[str], object], str] = {truth: "BOOL", int: "N", float: "X"}


def flag(name: str, annotation: str, **details: Any) -> Flag | None:
    """The flag of a field, from its annotation; None where no text can express its type."""
    if annotation.startswith("Literal["):
        choices = ast.literal_eval(annotation.removeprefix("Literal"))
        return Flag(name, str, **{**details, "choices": tuple(choices)})
    kinds = {kind.strip() for kind in annotation.split(" | ")} - {"None"}
    many = any(kind.startswith("list[") for kind in kinds)
    mapping = any(kind.startswith("dict") for kind in kinds)
    if kinds == {"bool"}:
        return Flag(name, truth, **{"bare": True, **details})
    if kinds in ({"int"}, {"float"}):
        return Flag(name, {"int": int, "float": float}[kinds.pop()], **details)
    if "str" in kinds or many:
        convert = truth_or_text if kinds & {"bool", "Literal[False]"} else str
        return Flag(name, convert, many=many, single="str" in kinds, mapping=mapping, **details)
    if mapping:
        return Flag(name, json_object, mapping=True, **details)
    return None


def flags_of(dataclass_type: Any) -> dict[str, Flag]:
    """The flags of a dataclass whose annotations are text (`from __future__ ...`)."""
    found = {}
    for item in dataclasses.fields(dataclass_type):
        required = item.default is dataclasses.MISSING
        details = {
            "required": required,
            "default": None if required or item.default in (None, "") else str(item.default),
            "help": item.metadata["help"],
        }
        made = flag(item.name, str(item.type), **details)
        assert made is not None, f"no flag can express {item.name}: {item.type}"
        found[item.name] = made
    return found


def transformers_flags() -> dict[str, Flag]:
    """The flags of the installed transformers' `TrainingArguments`, without importing it.

    Raises:
        SettingsError: transformers is not installed.
    """
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        raise SettingsError(
            "transformers is not installed, and training needs it.",
            hint="Install this project with its 'train' extra.",
        )
    source = Path(spec.origin).with_name("training_args.py").read_text(encoding="utf-8")
    (arguments,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"
    )
    made = (_flag_of_node(node) for node in arguments.body if isinstance(node, ast.AnnAssign))
    return {flag.name: flag for flag in made if flag is not None}


def _flag_of_node(node: ast.AnnAssign) -> Flag | None:
    """The flag of `name: type = field(default=..., metadata={"help": ...})`."""
    if not isinstance(node.target, ast.Name) or not isinstance(node.value, ast.Call):
        return None
    keywords = {keyword.arg: keyword.value for keyword in node.value.keywords}
    metadata = keywords.get("metadata")
    items = (
        zip(metadata.keys, metadata.values, strict=True) if isinstance(metadata, ast.Dict) else ()
    )
    notes = {key.value: _literal(value) for key, value in items if isinstance(key, ast.Constant)}
    default = _literal(keywords.get("default"))
    details: dict[str, Any] = {
        "choices": tuple(notes["choices"]) if notes.get("choices") else None,
        "default": None if default in (None, "") else str(default),
        "help": str(notes.get("help") or "").replace("%%", "%"),
    }
    if notes.get("nargs") == "?":
        details["bare"] = True
    return flag(node.target.id, ast.unparse(node.annotation), **details)


def _literal(node: ast.AST | None) -> Any:
    """The value of an expression that is a plain literal; None of any other."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message[:1].upper()}{message[1:]}.", hint="--help lists all flags.")


def parse(
    argv: Sequence[str],
    groups: Iterable[FlagGroup],
    *,
    description: str,
    given: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Parses a command line.

    Args:
        argv: without the program's name.
        groups: the flags that it may hold.
        description: heads the help.
        given: flags that got their value elsewhere, and so are not required here.

    Returns:
        For each group the values that were given, by name.

    Raises:
        SettingsError: an unknown or ambiguous flag, a missing one, or a wrong value.
        SystemExit: `--help` was given.
    """
    groups = list(groups)
    needed = (f"--{f.name} VALUE" for group in groups for f in group.flags.values() if f.required)
    parser = _Parser(
        usage=f"%(prog)s {' '.join(needed)} [more flags]",
        description=description,
        argument_default=argparse.SUPPRESS,
    )
    for group in groups:
        section = parser.add_argument_group(group.title)
        for item in group.flags.values():
            _add(section, replace(item, required=item.required and item.name not in given))
    parsed, unknown = parser.parse_known_args(list(_with_underscores(argv)))
    if unknown:
        raise _unknown(unknown, groups)
    values = vars(parsed)
    return [
        {name: _value(values[name], flag) for name, flag in group.flags.items() if name in values}
        for group in groups
    ]


def all_values(name: str, argv: Sequence[str]) -> list[str]:
    """The values of every `--name VALUE` on a command line, whatever else it holds.

    Raises:
        SettingsError: the last `--name` stands without a value.
    """
    parser = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument(f"--{name}", dest="values", action="append")
    parsed, _ = parser.parse_known_args(list(_with_underscores(argv)))
    values: list[str] = vars(parsed).get("values", [])
    return values


def _add(section: argparse._ArgumentGroup, item: Flag) -> None:
    shown = item.help + (f" (default: {item.default})" if item.default is not None else "")
    details: dict[str, Any] = {
        "dest": item.name,
        "type": item.convert,
        "required": item.required,
        "help": argparse.SUPPRESS if item.hidden else shown.replace("%", "%%"),
        "choices": item.choices,
    }
    if item.choices is None:
        details["metavar"] = _METAVARS.get(item.convert, "VALUE")
    if item.many:
        details["nargs"] = "+"
    elif item.bare:
        details |= {"nargs": "?", "const": True}
    section.add_argument(f"--{item.name}", **details)
    if item.convert is truth and item.default == "True":
        section.add_argument(
            f"--no_{item.name}", dest=item.name, action="store_false", help=argparse.SUPPRESS
        )


def _with_underscores(argv: Sequence[str]) -> Iterator[str]:
    for text in argv:
        name, equals, value = text.partition("=")
        yield f"--{name[2:].replace('-', '_')}{equals}{value}" if name[:2] == "--" else text


def _value(value: Any, flag: Flag) -> Any:
    """`--report_to wandb` is a name, not a list of one."""
    return value[0] if flag.many and flag.single and len(value) == 1 else value


def _unknown(unknown: Sequence[str], groups: Iterable[FlagGroup]) -> SettingsError:
    known = [f"--{name}" for group in groups for name in group.flags]
    name = next((text for text in unknown if text.startswith("-")), unknown[0]).partition("=")[0]
    close = difflib.get_close_matches(name, known, n=1)
    return SettingsError(
        f"Unknown argument: {' '.join(unknown)}.",
        hint=f"Did you mean {close[0]}?" if close else "--help lists all flags.",
    )
