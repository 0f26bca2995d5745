"""What can be typed in a terminal chat beside questions."""

from __future__ import annotations

from collections.abc import Mapping

COMMANDS: Mapping[str, str] = {
    "!!exit": "end the chat (so does an empty line)",
    "!!reset": "start a new dialogue",
    "!!remove": "take back the last question and its answer",
    "!!regen": "answer the last question again",
    "!!save": "save the dialogue: !!save FILE",
    "!!load": "go on with a saved dialogue: !!load FILE",
}
"""FastChat's commands."""

SLASH_COMMANDS: Mapping[str, str] = {
    "/help": "show the commands",
    "/system": "show the system message, or set it: /system TEXT",
    "/set": "show the settings, or set one: /set temperature 0.3",
    "/retry": "answer the last question again",
    "/undo": "take back the last question and its answer",
    "/new": "start a new dialogue",
    "/save": "save the dialogue: /save FILE",
    "/load": "go on with a saved dialogue: /load FILE",
    "/exit": "end the chat",
}

ALL_COMMANDS: Mapping[str, str] = {**SLASH_COMMANDS, **COMMANDS}

ACTIONS: Mapping[str, str] = {
    "!!exit": "exit",
    "!!reset": "new",
    "!!remove": "undo",
    "!!regen": "retry",
    "!!save": "save",
    "!!load": "load",
    **{name: name.removeprefix("/") for name in SLASH_COMMANDS},
}
"""What each command does; some have two names."""
