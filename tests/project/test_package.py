"""The built wheel: its extras as users type them, its data, and every import declared."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Asked for by name when a user switches it on.
OPTIONAL = {"modelscope"}
EXTRAS = {"model_worker", "webui", "train", "llm_judge", "dev", "all", "otel", "vllm"}
ALONE = {"vllm"}  # in an environment of its own


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> Path:
    """This project's wheel, built as pip builds it but with the backend that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=root, check=True)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_extras_are_spelled_as_users_type_them(metadata):
    """pip before 23.3 looks for the very spelling and skips what it does not find."""
    assert set(metadata.get_all("Provides-Extra")) == EXTRAS


def test_extras_with_underscores_are_allowed_by_the_metadata_version(metadata):
    assert tuple(map(int, metadata["Metadata-Version"].split("."))) < (2, 3)


def test_all_is_the_sum_of_the_extras_for_users(metadata):
    needs = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    by_extra = {extra: {need.name for need in needs if _is_of(extra, need)} for extra in EXTRAS}
    users = EXTRAS - {"all", "dev"} - ALONE
    assert by_extra["all"] == set().union(*(by_extra[extra] for extra in users))


def _is_of(extra: str, need: Requirement) -> bool:
    """Newer releases of packaging read `model_worker` as `model-worker`."""
    spellings = {extra, canonicalize_name(extra)}
    return any(f'extra == "{spelling}"' in str(need.marker) for spelling in spellings)


def test_the_wheel_carries_all_of_the_package(wheel, check_tree, root):
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    ours = {str(path) for path in check_tree.files(root) if path.parts[0] == "fastchat"}
    assert {name for name in ours if "__pycache__" not in name} <= packed


def test_the_wheel_carries_the_licence(metadata, wheel):
    assert metadata["License"] == "Apache-2.0"
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names - {"fastchat"} - OPTIONAL - sys.stdlib_module_names


def test_every_import_is_a_declared_dependency(root, metadata):
    """Under the names of the distributions; transitive dependencies do not count."""
    needs = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    declared = {
        canonicalize_name(need.name) for need in needs if 'extra == "dev"' not in str(need.marker)
    }
    providers = packages_distributions()
    undeclared = {
        f"{path.relative_to(root)}: {name}"
        for path in (root / "fastchat").rglob("*.py")
        for name in _imported(path)
        if declared.isdisjoint(map(canonicalize_name, providers.get(name, [name])))
    }
    assert undeclared == set()


def test_one_torch_everywhere(root):
    """The pin of the scripts is a release that the package allows."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    allowed = {need.name: need.specifier for need in map(Requirement, project["dependencies"])}
    pins = (root / "scripts" / "constraints.txt").read_text("utf-8")
    for name in ("torch", "transformers"):
        match = re.search(rf"^{name}==([\w.]+)", pins, re.MULTILINE)
        assert match is not None
        assert match[1] in allowed[name]


def _stub_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with nothing in it, so that pip can be watched without downloading anything."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.mark.slow
def test_the_documented_install_line_gets_every_extra(root, wheel, metadata, tmp_path):
    """`pip install ".[model_worker,webui,train]"` with the pip of a new environment."""
    pins = (root / "scripts" / "constraints.txt").read_text("utf-8")
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    wanted = set()
    for need in map(Requirement, metadata.get_all("Requires-Dist")):
        marker = str(need.marker)
        if "extra" in marker and not re.search(r'"(model[-_]worker|webui|train)"', marker):
            continue
        match = re.search(rf"^{need.name}==([\w.]+)", pins, re.MULTILINE)
        assert match is not None, f"{need.name} has no pin"
        _stub_wheel(stubs, need.name.replace("-", "_"), match[1])
        wanted.add(canonicalize_name(need.name))
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [venv / "bin" / "python", "-m", "pip"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    clean |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    install = [*pip, "install", "--no-index", "--find-links", stubs]
    result = subprocess.run(
        [*install, f"{wheel}[model_worker,webui,train]"],
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "does not provide the extra" not in result.stderr
    listed = subprocess.run(
        [*pip, "list", "--format=freeze"], env=clean, capture_output=True, text=True, check=True
    )
    assert wanted <= {
        canonicalize_name(line.partition("==")[0]) for line in listed.stdout.splitlines()
    }
