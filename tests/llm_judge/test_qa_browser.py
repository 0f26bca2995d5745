"""The page of answers in a browser."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("playwright")
pytest.importorskip("gradio")

from playwright.sync_api import expect

from fastchat.errors import SettingsError
from fastchat.llm_judge import gen_judgment, qa_browser
from fastchat.serve.processes import Service, Services, free_ports
from tests.llm_judge.conftest import answers_of, judging_flags, status_of, store_answers
from tests.web.browser import CHROMIUM, chromium
from tests.web.conftest import READY_S


@contextmanager
def page_of(folder):
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/"
    with Services(folder / "logs") as services:
        flags = ["--port", str(port)]
        services.start(Service("qa_browser", "fastchat.llm_judge.qa_browser", flags, url))
        services.wait_until_ready(READY_S)
        yield url


HOSTILE = "**Bold** <script>alert(1)</script> ![](http://192.0.2.1/a.png) `<b>` $$x^2$$"


@pytest.mark.full
@pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed")
def test_answers_side_by_side(workplace, make_judge):
    answers_of("one")
    store_answers("two", {81: [HOSTILE, "two two"], 82: ["3", "4"], 83: ["two why"]})
    stack = make_judge(lambda prompt: "Rating: [[7]]" if "Rating" in prompt else "So: [[A]]")
    for mode in ("single", "pairwise-all"):
        assert status_of(gen_judgment.main, judging_flags(stack, "--yes", "--mode", mode)) == 0
    with page_of(workplace) as url, chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1300})
        answered = []
        page.on("response", lambda response: answered.append(response.url))
        page.goto(url)
        first = page.locator("#turn-1")
        expect(first.locator(".block.asked")).to_contain_text("Write.")
        expect(first.locator(".block.said").nth(0)).to_contain_text("one one")
        expect(first.locator(".block.said").nth(1)).to_contain_text("score 7")
        expect(first.locator(".block.said").nth(1)).to_contain_text("<script>alert(1)</script>")
        expect(first.locator(".katex").first).to_be_visible()
        expect(first).to_contain_text("tie (with one first: one; with two first: two)")
        first.get_by_text("What the judge said").click()
        expect(first).to_contain_text("two first: So: [[A]]")
        if folder := os.environ.get("FASTCHAT_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / "qa-browser.png")
        page.get_by_text("Next question").click()
        expect(first.locator(".block.asked")).to_contain_text("1+1?")
        first.get_by_text("Reference answer").click()
        expect(page.locator("#turn-2")).to_be_visible()
        page.get_by_text("Next question").click()
        expect(page.locator("#turn-2")).to_be_hidden()
        assert [each for each in answered if not each.startswith((url, "data:", "blob:"))] == []


def test_without_answers_there_is_nothing_to_show(workplace):
    with pytest.raises(SettingsError, match="no answers"):
        qa_browser.main([])
