"""What the docs name exists: links, modules, paths, commands, flags, environment variables.

Reads Markdown and source text only; imports nothing of the project, so it takes no time and runs
before the project does. Prints one line a fault and exits 1 if there is any.

    python scripts/check_docs.py
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9_-]+)")
NAME = re.compile(r"[\"']([a-z][a-z0-9_]+)[\"']")
KEY = re.compile(r"\"([a-z][a-z-]*)\": ")
DOTTED = re.compile(r"\bfastchat(?:\.[A-Za-z_]\w*)+")
PATH = re.compile(r"(?<![\w./~-])(?:fastchat|scripts|docs|playground|tests)/[\w./-]+(?![\w*<])")
COMMAND = re.compile(r"(?:^|`)fastchat ([a-z][a-z-]*)", re.MULTILINE)
VARIABLE = re.compile(r"\bFASTCHAT_[A-Z_]+\b")

# Flags of other programs that the docs show.
FOREIGN_FLAGS = {
    "build-arg",  # docker, and the next three
    "detach",
    "name",
    "network",
    "fix",  # scripts/check, scripts/test.sh
    "full",
    "master_addr",  # torchrun
    "master_port",
    "nnodes",
    "node_rank",
    "nproc_per_node",
    "rdzv_backend",
    "rdzv_endpoint",
    "rdzv_id",
    "nodes",  # sbatch
    "requeue",
    "address",  # ray
    "head",
}


class Project:
    """What there is to be named: files, modules, flags, variables of a checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sources = {path: path.read_text("utf-8") for path in _sources(root)}
        self.text = "\n".join(self.sources.values())
        self.commands = set(KEY.findall(self.sources.get(root / "fastchat" / "__main__.py", "")))
        self.flags = {flag.replace("_", "-") for flag in self._flags()}

    def has_flag(self, flag: str) -> bool:
        """Whether any program takes `--flag`, or a longer one that it abbreviates."""
        name = flag.replace("_", "-")
        return flag in FOREIGN_FLAGS or any(known.startswith(name) for known in self.flags)

    def has_name(self, dotted: str) -> bool:
        """Whether `dotted` is a module, or a public name in one."""
        parts = dotted.split(".")
        for end in range(len(parts), 0, -1):
            base = self.root.joinpath(*parts[:end])
            module = base.with_suffix(".py")
            source = self.sources.get(module) or self.sources.get(base / "__init__.py")
            if source is not None:
                return end == len(parts) or parts[end] in _top_level_names(source)
        return False

    def _flags(self) -> Iterator[str]:
        for path, text in self.sources.items():
            yield from FLAG.findall(text)
            if "train" in path.parts:
                yield from _fields(text)
            if "flags" in path.stem:  # tables of flags
                yield from NAME.findall(text)
        transformers = importlib.util.find_spec("transformers")
        if transformers is not None and transformers.origin is not None:
            arguments = Path(transformers.origin).with_name("training_args.py")
            yield from _fields(arguments.read_text("utf-8"))


def _sources(root: Path) -> Iterator[Path]:
    yield from (root / "fastchat").rglob("*.py")
    yield from (path for path in (root / "scripts").glob("*") if path.is_file())
    yield root / "pyproject.toml"
    yield root / "Dockerfile"


def _fields(source: str) -> Iterator[str]:
    """Names of annotated class attributes: what HfArgumentParser makes into flags."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    yield item.target.id


def _top_level_names(source: str) -> set[str]:
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def _slug(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def _link_faults(page: Path, text: str) -> Iterator[str]:
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = page if not file else page.parent / file
        if not linked.exists():
            yield f"link to {target}: no such file"
        elif anchor:
            headings = HEADING.findall(FENCE.sub("", linked.read_text("utf-8")))
            if anchor not in {_slug(heading) for heading in headings}:
                yield f"link to {target}: no such heading"


def _code_faults(project: Project, text: str) -> Iterator[str]:
    code = "\n".join(CODE.findall(text))
    for flag in sorted(set(FLAG.findall(code))):
        if not project.has_flag(flag):
            yield f"--{flag}: no program takes this flag"
    for dotted in sorted(set(DOTTED.findall(code))):
        if not project.has_name(dotted):
            yield f"{dotted}: no such module or name"
    for path in sorted({path.rstrip(".") for path in PATH.findall(code)}):
        if not (project.root / path).exists():
            yield f"{path}: no such file"
    for command in sorted(set(COMMAND.findall(code)) - project.commands):
        yield f"fastchat {command}: no such command"
    for variable in sorted(set(VARIABLE.findall(code))):
        if variable not in project.text:
            yield f"{variable}: nothing reads this variable"


def pages(root: Path) -> list[Path]:
    """Every page written for people."""
    return [
        *sorted(root.glob("*.md")),
        *sorted(root.glob("docs/**/*.md")),
        *root.glob("playground/*.md"),
    ]


def faults(root: Path) -> list[str]:
    """All faults of the docs under `root`, each as `page: what`."""
    project = Project(root)
    found = []
    for page in pages(root):
        text = page.read_text("utf-8")
        page_faults = [*_link_faults(page, text)]
        if page.name != "CHANGELOG.md":  # names what was, too
            page_faults += _code_faults(project, text)
        found += [f"{page.relative_to(root)}: {fault}" for fault in page_faults]
    return found


def main() -> int:
    """Check this checkout; the exit status."""
    found = faults(Path(__file__).resolve().parents[1])
    print("\n".join(found) if found else "docs: every link, module, path, flag and variable exists")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
