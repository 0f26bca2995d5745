"""The page in a browser, on real servers."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest

pytest.importorskip("playwright")

from playwright.sync_api import expect

from fastchat.demo.command import MODEL_NAME, serve
from fastchat.engine.echo import Script
from fastchat.serve.processes import Services
from fastchat.serve.running import bind
from fastchat.serve.worker.app import WorkerSettings, create_worker_app
from tests.serve.conftest import _running
from tests.serve.harness import QUICK, ReservedPort, Stack, make_served, until
from tests.web.browser import CHROMIUM, Visit, arrive, chromium, visit
from tests.web.conftest import pages

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed"),
]

MARKDOWN = "好的，**这里**：\n\n```python\nprint('你好')\n```\n\n$$x^2$$\n\n"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@dataclass
class Site:
    """A stack with two models, and the page with all tabs."""

    stack: Stack
    page_url: str
    folder: Path

    @property
    def engine(self):
        return self.stack.engine


def make_site(maker, serve, folder):
    stack = maker(worker={"model_names": ["echo", "echo2"]})
    return Site(stack, serve(stack.controller_server.url), folder)


@pytest.fixture(scope="module")
def _shared_site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with _running() as maker, pages(folder) as serve:
        yield make_site(maker, serve, folder)


@pytest.fixture
def site(_shared_site):
    """Shared; every visitor is a new one."""
    _shared_site.engine.script = Script(answer=lambda prompt: MARKDOWN + prompt)
    return _shared_site


def test_a_chat_from_the_first_word_to_the_export(browser, site, tmp_path):
    with visit(browser, site.page_url) as visitor:
        page = visitor.page
        outside = [url for url in visitor.requests if not url.startswith(site.page_url)]
        assert [url for url in outside if not url.startswith(("data:", "blob:"))] == []
        visitor.shot("chat-empty")
        visitor.send("你好")
        visitor.complete(1)
        expect(visitor.box()).to_have_value("")
        expect(visitor.answers().locator("strong")).to_have_text("这里")
        expect(visitor.answers().locator("code")).to_contain_text("print")
        expect(visitor.answers().locator(".katex").first).to_be_visible()
        expect(visitor.figures()).to_have_text(re.compile(r"\d+ tokens · .* · complete"))
        visitor.shot("chat")

        visitor.button("Regenerate").click()
        expect(page.locator("#chat-versions")).to_contain_text("Version 2 of 2")
        page.locator("#chat-versions").get_by_text("Previous version").click()
        expect(page.locator("#chat-versions")).to_contain_text("Version 1 of 2")
        visitor.shot("versions")

        page.get_by_label("Edit", exact=True).first.click()
        editor = page.locator("#chat-chat textarea")
        editor.fill("edited")
        page.get_by_label("Submit", exact=True).first.click()
        expect(visitor.answers()).to_contain_text("edited")
        visitor.send("second")
        visitor.complete(2)
        visitor.button("Undo").click()
        visitor.complete(1)

        page.reload()
        visitor.complete(1)
        expect(visitor.answers()).to_contain_text("edited")
        visitor.send("third")
        visitor.complete(2)
        page.get_by_text("This conversation").click()
        page.get_by_label("Title").fill("My talk")
        visitor.button("Rename").click()
        expect(page.locator("#history")).to_contain_text("My talk")
        for kind, name in (("Export as JSON", "talk.json"), ("Export as Markdown", "talk.md")):
            with page.expect_download() as download:
                page.get_by_role("button", name=kind).click()
            download.value.save_as(tmp_path / name)
        visitor.shot("history")
        assert visitor.troubles == []
    with visit(browser, site.page_url) as visitor:
        expect(visitor.page.locator("#history label")).to_have_count(0)
        for count, name in enumerate(("talk.json", "talk.md"), start=1):
            with visitor.page.expect_file_chooser() as chooser:
                visitor.button("Import").click()
            chooser.value.set_files(tmp_path / name)
            expect(visitor.page.locator("#history label")).to_have_count(count)
            # Markdown is for reading: it does not carry the figures.
            visitor.complete(2 if name == "talk.json" else 0)
            expect(visitor.answers().last).to_contain_text("third")
    (talk,) = json.loads((tmp_path / "talk.json").read_text("utf-8"))["conversations"]
    assert len([each for each in talk["messages"] if each["parent"] is None]) == 2
    assert "third" in (tmp_path / "talk.md").read_text("utf-8")


def test_a_files_text_goes_into_the_prompt(browser, site, tmp_path):
    file = tmp_path / "笔记.md"
    file.write_text("天空是蓝色的", encoding="utf-8")
    with visit(browser, site.page_url) as visitor:
        visitor.page.locator("#chat-box input[type=file]").set_input_files(file)
        expect(visitor.page.get_by_role("listitem", name="File thumbnail")).to_be_visible()
        visitor.send("总结一下")
        visitor.complete(1)
        expect(visitor.answers()).to_contain_text("天空是蓝色的")
        expect(visitor.answers()).to_contain_text("总结一下")


def test_what_is_copied_and_edited_is_what_was_written(browser, site):
    said = "a <b>tag</b> of $5 and $x_1$"
    allowed = ["clipboard-read", "clipboard-write"]
    with visit(browser, site.page_url, permissions=allowed) as visitor:
        page = visitor.page
        visitor.send(said)
        visitor.complete(1)
        expect(visitor.answers()).to_contain_text("a <b>tag</b> of $5")
        expect(visitor.answers().locator(".katex")).to_have_count(2)
        page.get_by_label("Copy message").last.click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith(MARKDOWN)
        assert said in copied
        page.get_by_label("Edit", exact=True).first.click()
        expect(page.locator("#chat-chat textarea")).to_have_value(said)


def test_a_long_conversation_is_shown_from_near_its_end(browser, site, tmp_path):
    roles = [("user", "question"), ("assistant", "answer")] * 30
    messages = [{"role": role, "content": f"{what} {at}"} for at, (role, what) in enumerate(roles)]
    file = tmp_path / "long.json"
    file.write_text(json.dumps({"messages": messages}))
    with visit(browser, site.page_url) as visitor:
        page = visitor.page
        with page.expect_file_chooser() as chooser:
            visitor.button("Import").click()
        chooser.value.set_files(file)
        expect(visitor.answers()).to_have_count(20)
        page.get_by_label("Edit", exact=True).first.click()
        page.locator("#chat-chat textarea").fill("another question")
        page.get_by_label("Submit", exact=True).first.click()
        visitor.complete(1)
        expect(page.locator("#chat-versions")).to_be_hidden()
        visitor.button("Undo").click()
        expect(visitor.answers()).to_have_count(10)
        expect(visitor.answers().first).to_contain_text("answer 1")
        expect(visitor.answers().last).to_contain_text("answer 19")


def test_a_login_is_asked_for_and_the_history_is_the_users(browser, site, serve_page, tmp_path):
    users = tmp_path / "users"
    users.write_text("me:pass:word\nyou:other\n")
    stack = site.stack
    url = serve_page(stack.controller_server.url, "--gradio-auth-path", str(users), many=False)

    def entered(user, password):
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.goto(url)
        page.get_by_label("username").fill(user)
        page.get_by_label("password").fill(password)
        page.get_by_role("button", name="Login").click()
        expect(page.locator("#model input")).not_to_have_value("")
        return Visit(page)

    mine = entered("me", "pass:word")
    mine.send("my secret")
    mine.complete(1)
    elsewhere, other = entered("me", "pass:word"), entered("you", "other")
    expect(elsewhere.page.locator("#history")).to_contain_text("my secret")
    expect(other.page.locator("#history label")).to_have_count(0)
    for each in (mine, elsewhere, other):
        each.page.context.close()


def test_stopping_frees_the_engine_and_keeps_the_text(browser, site):
    site.engine.script = Script(answer=lambda _: "x" * 900, gate=_Metronome())
    with visit(browser, site.page_url) as visitor:
        visitor.send("long")
        expect(visitor.answers()).to_contain_text("xx")
        assert site.engine.stats().running == 1
        visitor.page.locator("#chat-box").get_by_label("Stop", exact=True).click()
        expect(visitor.figures()).to_contain_text("stopped")
        until(lambda: site.engine.stats().running == 0)
        expect(visitor.answers()).to_contain_text("xx")
        visitor.shot("stopped")
        # A closed tab frees it too.
        visitor.send("again")
        until(lambda: site.engine.stats().running == 1)
    until(lambda: site.engine.stats().running == 0)


class _Metronome:
    """A gate that opens a hundred times a second."""

    async def wait(self):
        await asyncio.sleep(0.01)


def test_a_worker_that_goes_away_is_told_of_and_is_used_again_when_it_is_back(
    browser, make_stack, serve_page, tmp_path
):
    site = make_site(make_stack, serve_page, tmp_path)
    stack = site.stack
    site.engine.script = Script(answer=lambda _: "kept " * 150, gate=_Metronome())
    with visit(browser, site.page_url) as visitor:
        visitor.send("precious question")
        expect(visitor.answers()).to_contain_text("kept kept")
        stack.worker_server.__exit__()
        expect(visitor.figures()).to_have_text(re.compile(r"The answer broke off: .*request req-"))
        expect(visitor.answers()).to_contain_text("kept kept")
        expect(visitor.page.locator("#chat-chat")).to_contain_text("precious question")
        visitor.shot("broke-off")
        served, _ = make_served()
        settings = WorkerSettings(
            worker_address=stack.worker_server.url,
            model_names=["echo", "echo2"],
            controller_address=stack.controller_server.url,
            pace=QUICK,
        )
        make_stack.serve(
            lambda _: create_worker_app(served, settings), SamePort(stack.worker_server.url)
        )
        stack.controller.await_worker()
        visitor.button("Regenerate").click()
        expect(visitor.figures()).to_contain_text("complete")
        expect(visitor.answers()).to_contain_text("precious question")


class SamePort(ReservedPort):
    """The port on which a server was before."""

    def __init__(self, url):
        self.socket = bind("127.0.0.1", int(url.rpartition(":")[2]))[0]
        self.url = url


def test_two_models_are_compared_and_a_battle_is_counted(browser, site):
    with visit(
        browser, site.page_url + "/?compare", locale="zh-CN", color_scheme="dark"
    ) as visitor:
        page = visitor.page
        visitor.send("你好", "compare")
        for side in "AB":
            visitor.complete(1, f"compare-{side}")
        visitor.shot("compare-zh-dark")
        visitor.button("平局").click()
        page.get_by_role("tab", name="匿名对战").click()
        visitor.send("你好", "battle")
        for side in "AB":
            visitor.complete(1, f"battle-{side}")
        names = page.locator(".revealed:visible")
        expect(page.get_by_text(re.compile("模型 [AB] 是"))).to_have_count(2)  # of the comparison
        visitor.button("A 更好").click()
        expect(names.first).to_contain_text("echo")
        visitor.shot("battle-zh-dark")
        page.get_by_role("tab", name="排行榜").click()
        expect(page.locator("#board table")).to_contain_text("echo2")
        expect(page.locator("#board")).to_contain_text("共 1 票")
        page.get_by_label("同时统计").check()
        expect(page.locator("#board")).to_contain_text("共 2 票")
        visitor.shot("leaderboard-zh-dark")
    (log,) = (site.folder / "logs").glob("*-conv.json")
    kinds = [json.loads(line)["type"] for line in log.read_text("utf-8").splitlines()]
    assert kinds.count("leftvote") == kinds.count("tievote") == 1


def test_the_language_can_be_switched_and_stays(browser, site):
    with visit(browser, site.page_url) as visitor:
        page = visitor.page
        expect(visitor.button("Regenerate")).to_be_visible()
        page.locator("#language input").click()
        page.get_by_role("option", name="中文").click()
        expect(visitor.button("重新生成")).to_be_visible()
        arrive(visitor, site.page_url)
        expect(visitor.button("重新生成")).to_be_visible()


def test_a_phone_shows_all_of_it_and_the_keyboard_reaches_it(browser, site):
    with visit(browser, site.page_url, viewport={"width": 390, "height": 844}) as visitor:
        page = visitor.page
        visitor.send("hi " * 100)
        visitor.complete(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        expect(visitor.box()).to_be_visible()
        visitor.shot("phone")
        visitor.box().focus()
        reached = set()
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.innerText || ''"))
        assert {"Regenerate", "Undo", "Flag"} <= reached


def test_a_message_that_is_too_long_stays_in_the_box(browser, site):
    with visit(browser, site.page_url) as visitor:
        visitor.send("x" * 2000)
        expect(visitor.page.get_by_text("the model reads 1024 at most")).to_be_visible()
        expect(visitor.box()).to_have_value("x" * 2000)


@pytest.mark.skipif("FASTCHAT_AXE" not in os.environ, reason="$FASTCHAT_AXE names no axe.min.js")
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_no_view_has_a_serious_fault_of_access(browser, site, colours):
    """With axe-core, which comes from npm."""
    axe = Path(os.environ["FASTCHAT_AXE"]).read_text("utf-8")
    with visit(browser, site.page_url, color_scheme=colours) as visitor:
        visitor.send("你好")
        visitor.complete(1)
        for tab in ("Chat", "Side by side", "Battle", "Leaderboard", "About"):
            visitor.page.get_by_role("tab", name=tab).click()
            visitor.page.evaluate(axe)
            found = visitor.page.evaluate("axe.run()")["violations"]
            serious = [each for each in found if each["impact"] in ("serious", "critical")]
            told = [(each["id"], each["nodes"][0]["html"]) for each in serious]
            assert told == [], tab


def test_the_tiny_model_answers_on_the_page(browser, serve_page, tmp_path):
    """All processes as users start them; the page asks the API, as a model of another server."""
    checkpoint = Path(str(resources.files("fastchat.demo") / "checkpoint"))
    with Services(tmp_path / "services") as services:
        api = serve(services, checkpoint, "127.0.0.1", 0)
        entry = {"api_type": "openai", "api_base": api + "/v1", "model_name": MODEL_NAME}
        register = tmp_path / "apis.json"
        register.write_text(json.dumps({"tiny": entry}))
        url = serve_page("", "--register-api-endpoint-file", str(register), many=False)
        with visit(browser, url) as visitor:
            expect(visitor.page.locator("#model input")).to_have_value("tiny")
            visitor.send("你是谁")
            visitor.complete(1)
            expect(visitor.figures()).to_have_text(re.compile(r"\d+ tokens · .* tokens/s"))
            expect(visitor.answers()).not_to_have_text("")
            visitor.shot("tiny-model")
