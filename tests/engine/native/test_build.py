"""The library is compiled once, by one of several processes; without a compiler it says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from fastchat.engine.native import build as building
from fastchat.engine.native.build import NativeUnavailableError, build, find_compiler
from fastchat.engine.native.kernels import Kernels
from fastchat.engine.native.library import ThreadPool, load


@pytest.fixture
def tiny_sources(tmp_path, monkeypatch):
    """A folder with one small source file in place of the kernels, so that compiling is quick."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "one.cpp").write_text('extern "C" int one() { return 1; }\n')
    monkeypatch.setattr(building, "SOURCES", folder)
    return folder


def test_a_library_is_compiled_once_and_again_when_a_source_changes(
    kernels, tiny_sources, tmp_path
):
    cache = tmp_path / "cache"
    first = build(folder=cache)
    made = first.stat().st_mtime_ns
    assert build(folder=cache) == first
    assert first.stat().st_mtime_ns == made
    assert load(str(first)).one() == 1
    (tiny_sources / "one.cpp").write_text('extern "C" int one() { return 2; }\n')
    second = build(folder=cache)
    assert second != first
    assert load(str(second)).one() == 2
    assert build(folder=cache, defines=["OTHER=1"]) not in (first, second)


def test_two_processes_get_the_same_library(kernels, tmp_path):
    script = (
        "import sys; from pathlib import Path; from fastchat.engine.native import build as b; "
        f"b.SOURCES = Path({str(tmp_path)!r}); print(b.build(folder=Path({str(tmp_path)!r})))"
    )
    (tmp_path / "one.cpp").write_text('extern "C" int one() { return 1; }\n')
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paths = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (path,) = paths
    assert load(path).one() == 1
    assert not list(tmp_path.glob("tmp*"))


def test_a_source_that_does_not_compile_is_reported(kernels, tiny_sources, tmp_path):
    (tiny_sources / "one.cpp").write_text("int one( { }\n")
    with pytest.raises(NativeUnavailableError, match=r"(?s)ended with status 1.*error.*Set CXX"):
        build(folder=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.so"))


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++ -O1")
    with pytest.raises(NativeUnavailableError, match=r"CXX=/nowhere/g\+\+ -O1 names no program"):
        find_compiler()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NativeUnavailableError, match=r"no C\+\+ compiler is on the path.*g\+\+"):
        find_compiler()


def test_the_reason_is_told_once_to_whoever_falls_back():
    script = (
        "import logging; logging.basicConfig(); "
        "from fastchat.engine.native.availability import unavailable_reason as why; "
        "why(); print(why())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"CXX": "/nowhere/g++"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CXX=/nowhere/g++ names no program" in done.stdout
    assert done.stderr.count("names no program") == 1
    assert "torch's own operations" in done.stderr


def test_what_is_no_library_does_not_load(tmp_path):
    (tmp_path / "a.so").write_bytes(b"nothing")
    with pytest.raises(NativeUnavailableError, match="does not load"):
        load(str(tmp_path / "a.so"))


def test_pools_serve_forked_children_and_many_callers(kernels):
    weight = torch.randn(256, 64)
    packed = kernels.pack(weight, "float32")
    x = torch.randn(8, 64)
    want = torch.empty(8, 256)
    kernels.matmul(x, packed, want)

    def correct():
        out = torch.empty(8, 256)
        kernels.matmul(x, packed, out)
        return torch.equal(out, want)

    child = os.fork()
    if child == 0:
        os._exit(0 if all(correct() for _ in range(20)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(lambda _: correct(), range(400)))


def test_pools_end(kernels):
    pool = ThreadPool(3)
    Kernels(1, pool=pool).silu_mul(torch.zeros(1, 8), torch.zeros(1, 4))
    pool.close()
    with pytest.raises(ValueError, match="threads=0"):
        ThreadPool(0)
