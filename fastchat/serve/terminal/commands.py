"""What can be typed in a terminal chat beside questions."""

COMMANDS = {
    "!!exit": "end the chat (so does an empty line)",
    "!!reset": "start a new dialogue",
    "!!remove": "take back the last question and its answer",
    "!!regen": "answer the last question again",
    "!!save": "save the dialogue: !!save FILE",
    "!!load": "go on with a saved dialogue: !!load FILE",
}
