"""A terminal's style for tests."""

from __future__ import annotations


class Recorded:
    """A style that reads from a list and remembers what it showed."""

    def __init__(self, *inputs):
        self.inputs = list(inputs)
        self.shown = []
        self.said = []

    def ask(self, role):
        return self.inputs.pop(0) if self.inputs else None

    def begin(self, role):
        self.shown.append("")

    def write(self, text):
        self.shown[-1] += text

    def end(self):
        pass

    def say(self, text):
        self.said.append(text)
