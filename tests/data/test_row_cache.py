"""Tokenised data are made once for what they are made of, and never half."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastchat.cache_folder import cache_folder
from fastchat.chat import JinjaChatRenderer, TemplateChatRenderer, YuanChatRenderer
from fastchat.conversation import get_conv_template
from fastchat.data.item_file import ItemBlock, ItemFile, write_items
from fastchat.data.row_cache import cached_items, digest
from fastchat.data.rows import RowStats
from fastchat.data.tree import Tree
from fastchat.model.tokenization_yuan import YuanTokenizer
from tests.talks import same_tree


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    size = draw(st.integers(1, 9))
    numbers = st.integers(-1, 2**31 - 1)
    pairs = st.lists(st.tuples(numbers, numbers), max_size=3)
    ids = draw(st.lists(numbers, min_size=size, max_size=size))
    return Tree(draw(st.text(max_size=4)), np.array(ids, np.int32), draw(pairs), draw(pairs))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(blocks=st.lists(st.lists(trees(), max_size=4), min_size=1, max_size=3))
def test_a_file_gives_back_what_was_written(tmp_path: Path, blocks: list[list[Tree]]) -> None:
    path = tmp_path / "items.arrow"
    stats = [RowStats(samples=len(block) + 1, rows=number) for number, block in enumerate(blocks)]
    write_items(path, (ItemBlock.of(*pair) for pair in zip(blocks, stats, strict=True)))
    written = [tree for block in blocks for tree in block]
    file = ItemFile(path)
    for read in (file, pickle.loads(pickle.dumps(file))):
        assert len(read) == len(written)
        assert all(same_tree(read[index], tree) for index, tree in enumerate(written))
        assert read.lengths.tolist() == [len(tree) for tree in written]
        assert read.stats.samples == sum(len(block) + 1 for block in blocks)
        assert read.stats.rows == sum(range(len(blocks)))


BLOCK = ItemBlock.of([Tree("a", np.array([1, 2], np.int32), (), [(1, 2)])], RowStats(samples=1))


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    made: list[Path] = []

    def write(path: Path) -> None:
        made.append(path)
        write_items(path, [BLOCK])

    folder = tmp_path / "not" / "yet" / "there"
    assert len(cached_items("key", write, folder)) == len(cached_items("key", write, folder)) == 1
    assert made == [folder / "key.arrow"]
    cached_items("other", write, folder)
    assert len(made) == 2


def test_a_write_that_fails_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        def blocks() -> Any:
            yield BLOCK
            raise OSError("the disk is full")

        write_items(path, blocks())

    with pytest.raises(OSError, match="full"):
        cached_items("key", fail, tmp_path)
    assert not list(tmp_path.glob("*.arrow"))
    assert len(cached_items("key", lambda path: write_items(path, [BLOCK]), tmp_path)) == 1


WRITER = """
import sys
from pathlib import Path
import numpy as np
from fastchat.data.item_file import ItemBlock, write_items
from fastchat.data.row_cache import cached_items
from fastchat.data.rows import RowStats
from fastchat.data.tree import Tree

def blocks():
    block = ItemBlock.of([Tree("a", np.array([1, 2], np.int32), (), [(1, 2)])], RowStats())
    yield block
    print("half", flush=True)
    sys.stdin.readline()
    yield block

print("started", flush=True)
file = cached_items("key", lambda path: write_items(path, blocks()), Path(sys.argv[1]))
print(len(file), flush=True)
"""


def start_writer(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_of_two_processes_one_makes_the_file_and_both_read_it(tmp_path: Path) -> None:
    with start_writer(tmp_path) as first:
        assert first.stdout is not None
        assert [first.stdout.readline() for _ in range(2)] == ["started\n", "half\n"]
        with start_writer(tmp_path) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "started\n"
            assert not (tmp_path / "key.arrow").exists()
            assert first.communicate("\n", timeout=60)[0] == "2\n"
            assert second.communicate("\n", timeout=60)[0] == "2\n"  # and no "half"
    assert first.returncode == second.returncode == 0


def test_a_process_that_is_killed_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    with start_writer(tmp_path) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["started\n", "half\n"]
        process.send_signal(signal.SIGKILL)
    assert not list(tmp_path.glob("*.arrow"))
    assert len(cached_items("key", lambda path: write_items(path, [BLOCK]), tmp_path)) == 1


def test_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCHAT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("FASTCHAT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "fastchat"


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = cached_items("key", lambda path: write_items(path, [BLOCK]), tmp_path / "file" / "below")
    assert len(file) == 1
    assert (tmp_path / f"fastchat-{os.getuid()}" / "key.arrow").exists()
    assert "Set FASTCHAT_CACHE" in caplog.text


def test_whatever_decides_on_the_rows_decides_on_the_key(
    tokenizer: YuanTokenizer, renderer: YuanChatRenderer, tmp_path: Path
) -> None:
    data, other_data, again = (tmp_path / name for name in ("data", "other", "again"))
    data.write_bytes(b"[1]")
    again.write_bytes(b"[1]")
    other_data.write_bytes(b"[2]")
    end = YuanTokenizer(tokenizer.vocab_file)
    end.eos_token = "<pad>"
    added = YuanTokenizer(tokenizer.vocab_file)
    added.add_tokens(["<another>"])
    templates = [get_conv_template(name) for name in ("vicuna_v1.1", "one_shot")]
    keys = [
        digest(data, tokenizer, renderer, "split", 512),
        digest(other_data, tokenizer, renderer, "split", 512),
        digest(data, tokenizer, renderer, "last", 512),
        digest(data, tokenizer, renderer, "split", 511),
        digest(data, end, YuanChatRenderer(end), "split", 512),
        digest(data, added, YuanChatRenderer(added), "split", 512),
        digest(data, tokenizer, JinjaChatRenderer(tokenizer), "split", 512),
        *(
            digest(data, tokenizer, TemplateChatRenderer(template, tokenizer), "split", 512)
            for template in templates
        ),
    ]
    assert len(set(keys)) == len(keys)
    assert digest(again, tokenizer, renderer, "split", 512) == keys[0]
