"""Recipes: a trainer's flags in a YAML file.

A recipe is one map. Its keys are flag names, its values what the command line would give,
with YAML's own lists, maps and booleans. Whatever is wrong is said with file and line.
Knows the flags from `flags`; imports neither torch nor transformers.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from yaml.nodes import (  # type: ignore[import-untyped]
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
)

from fastchat.errors import SettingsError
from fastchat.train.flags import Flag, json_object, truth

_NULL, _FLOAT = "tag:yaml.org,2002:null", "tag:yaml.org,2002:float"
_KINDS: Mapping[Any, str] = {truth: "true or false", int: "a whole number", float: "a number"}


class _Loader(yaml.SafeLoader):
    """Reads 5e8 and 2e-5 as numbers, which YAML 1.1 takes for texts."""


_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something stands in a recipe."""

    source: str
    node: Node

    def error(self, message: str, hint: str | None = None, param: str | None = None) -> Exception:
        line = self.node.start_mark.line + 1
        return SettingsError(f"{self.source}, line {line}: {message}", hint=hint, param=param)


def read_recipes(
    recipes: Iterable[str], flags: Mapping[str, Flag], elsewhere: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The values that recipes give, by flag; a later recipe wins over an earlier one.

    `null` takes back what an earlier recipe gave.

    Args:
        recipes: files, or the YAML itself where it starts with `{`.
        flags: those that may be given, by name.
        elsewhere: flags of other entries, and the entry's name for the message.

    Raises:
        SettingsError: a recipe that cannot be read, an unknown or repeated key, or a
            value of the wrong type; names file and line.
    """
    values: dict[str, Any] = {}
    for recipe in recipes:
        values |= _read_recipe(recipe, flags, elsewhere or {})
    return {name: value for name, value in values.items() if value is not None}


def _read_recipe(
    recipe: str, flags: Mapping[str, Flag], elsewhere: Mapping[str, str]
) -> dict[str, Any]:
    inline = recipe.lstrip().startswith("{")
    source = "--config" if inline else recipe
    root = _compose(recipe if inline else _text(recipe), source)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, node in root.value:
        place = _Place(source, key)
        name = _name(key, place, flags, elsewhere)
        if name in lines:
            raise place.error(f"{key.value} was given in line {lines[name]} already.", param=name)
        lines[name] = key.start_mark.line + 1
        values[name] = _value(node, flags[name], _Place(source, node))
    return values


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(
            f"--config {path} cannot be read: {error.strerror}.", param="config"
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"--config {path} is not UTF-8: byte {error.start} cannot be read.", param="config"
        ) from None


def _compose(text: str, source: str) -> MappingNode:
    """The map that a recipe is.

    Raises:
        SettingsError: it is no YAML, or no map.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = error.problem or error.context
        raise SettingsError(f"{source}{where}: not valid YAML: {what}.", param="config") from None
    except yaml.YAMLError as error:
        what = " ".join(str(error).split())
        raise SettingsError(f"{source}: not valid YAML: {what}.", param="config") from None
    if root is None:
        raise SettingsError(
            f"{source} is empty.",
            hint="A recipe is a map of flags: `learning_rate: 2e-5`, one a line.",
            param="config",
        )
    if not isinstance(root, MappingNode):
        raise _Place(source, root).error(
            "a recipe is a map of flags, and this is none.",
            hint="Write `learning_rate: 2e-5`, one flag a line.",
            param="config",
        )
    return root


def _name(key: Node, place: _Place, flags: Mapping[str, Flag], elsewhere: Mapping[str, str]) -> str:
    """The flag that a key means, in either spelling."""
    if not isinstance(key, ScalarNode):
        raise place.error("a key has to be the name of a flag, and this is a list or a map.")
    name = str(key.value).removeprefix("--").replace("-", "_")
    if name in flags:
        return name
    if name == "config":
        raise place.error("a recipe cannot name another.", hint="Give --config several times.")
    if name in elsewhere:
        raise place.error(f"{key.value} is a flag of {elsewhere[name]} only.", param=name)
    raise place.error(f"unknown key {key.value!r}.", hint=_nearest(name, flags))


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else "--help lists all flags."


def _value(node: Node, flag: Flag, place: _Place) -> Any:
    """What the command line would have made of a value; None of `null`."""
    if isinstance(node, MappingNode):
        return _map(node, flag, place)
    if isinstance(node, SequenceNode):
        if not flag.many:
            raise place.error(f"{flag.name} is a list; {_wanted(flag)} is needed.", param=flag.name)
        items = [_scalar(item, flag, _Place(place.source, item)) for item in node.value]
        if not items:
            raise place.error(
                f"{flag.name} is an empty list.", hint="Leave it out, or say null.", param=flag.name
            )
        return items[0] if flag.single and len(items) == 1 else items
    if node.tag == _NULL:
        return None
    value = _scalar(node, flag, place)
    return [value] if flag.many and not flag.single else value


def _scalar(node: Node, flag: Flag, place: _Place) -> Any:
    """A single value, read from its text as the command line reads it.

    YAML's own guess at the type is not asked: `no` has to stay the name of a strategy
    where one is wanted. Quotes say that a text is meant.
    """
    wanted = _wanted(flag)
    if not isinstance(node, ScalarNode) or node.tag == _NULL:
        raise place.error(f"{flag.name} holds no single value; {wanted} is needed.")
    text = str(node.value)
    quoted = node.style in ("'", '"')
    try:
        if quoted and flag.convert in _KINDS:
            raise ValueError  # noqa: TRY301  (the message below fits this too)
        value = flag.convert(text)
    except (ValueError, argparse.ArgumentTypeError):
        shown = f'"{text}"' if quoted else text
        raise place.error(f"{flag.name} is {shown}; {wanted} is needed.", param=flag.name) from None
    if flag.choices is not None and value not in flag.choices:
        raise place.error(
            f"{flag.name} is {text!r}; allowed are {', '.join(flag.choices)}.", param=flag.name
        )
    return value


def _wanted(flag: Flag) -> str:
    if flag.convert in _KINDS:
        return _KINDS[flag.convert]
    if flag.choices is not None:
        return f"one of {', '.join(flag.choices)}"
    if flag.convert is json_object:
        return "a map"
    return "a text or a map" if flag.mapping else "a text"


def _map(node: MappingNode, flag: Flag, place: _Place) -> Any:
    """A map as the flag takes it: itself, or as JSON where a file's path could stand too."""
    if not flag.mapping:
        raise place.error(f"{flag.name} is a map; {_wanted(flag)} is needed.", param=flag.name)
    loader = _Loader("")
    try:
        text = json.dumps(loader.construct_document(node))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or node.start_mark
        raise SettingsError(
            f"{place.source}, line {mark.line + 1}: {error.problem}.", param=flag.name
        ) from None
    except (TypeError, ValueError) as error:
        raise place.error(
            f"{flag.name} holds what JSON cannot say: {error}.", param=flag.name
        ) from None
    finally:
        loader.dispose()
    return flag.convert(text)
