"""Training from the page: from picking data to a chat with what came out."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

pytest.importorskip("playwright")

from playwright.sync_api import expect

from fastchat.serve.web.training import offers
from tests.web.browser import CHROMIUM, arrive, chromium, visit

DEMO = Path(str(resources.files("fastchat.demo")))
PATIENCE_MS = 120_000  # a trainer and a worker load torch first


def test_what_lies_here_is_offered(tmp_path):
    for name in ("data/a.jsonl", "b.parquet", "notes.txt", ".hidden/data/c.json", "m/config.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "mine.yaml").touch()
    found = offers(tmp_path)
    assert found.models == ["m"]
    assert found.data == ["b.parquet", "data/a.jsonl"]
    assert found.recipes == ["mine.yaml"]


@pytest.mark.full
@pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed")
def test_a_model_is_trained_watched_stopped_and_talked_to(make_stack, serve_page, tmp_path):
    url = serve_page(make_stack().controller_server.url, "--train", many=False)
    with chromium() as browser, visit(browser, url) as visitor:
        page = visitor.page

        def pick(name, path):
            box = page.locator(f"#train-{name} input")
            box.fill(str(path))
            box.press("Enter")
            box.press("Tab")

        def fill_in(output, steps):
            page.get_by_role("tab", name="Training").click()
            pick("model", DEMO / "checkpoint")
            pick("data", DEMO / "data" / "dummy_conversation.json")
            page.get_by_label("Folder for the result").fill(str(tmp_path / output))
            page.get_by_label("Longest row").fill("128")
            more = f"--max_steps {steps} --use_cpu True --per_device_train_batch_size 2"
            page.get_by_label("Further flags").fill(more)

        def ended():
            expect(page.get_by_text("has ended")).to_be_visible(timeout=PATIENCE_MS)

        shown, loss = page.locator("#train-shown"), page.locator("#train-loss svg")
        fill_in("stopped", 2000)
        visitor.button("Show rows").click()
        expect(shown).to_contain_text("learned", timeout=PATIENCE_MS)
        expect(shown).to_contain_text("⟦")
        visitor.shot("training-rows")
        visitor.button("Show command").click()
        expect(shown).to_contain_text("--split_example_loss True")
        visitor.button("Start").click()
        expect(loss).to_be_visible(timeout=PATIENCE_MS)
        arrive(visitor, url)
        page.get_by_role("tab", name="Training").click()
        expect(page.get_by_text("Training into")).to_be_visible()
        expect(loss).to_be_visible()
        visitor.shot("training")
        visitor.button("Stop training").click()
        ended()

        fill_in("mine", 2)
        visitor.button("Start").click()
        expect(page.get_by_text(str(tmp_path / "mine") + " has ended")).to_be_visible(
            timeout=PATIENCE_MS
        )
        visitor.button("Serve the result").click()
        expect(shown).to_contain_text("mine is served", timeout=PATIENCE_MS)
        page.get_by_role("tab", name="Chat").click()
        expect(page.locator("#model input")).to_have_value("mine")
        visitor.send("你是谁")
        visitor.complete(1)
        visitor.shot("training-chat")
        assert visitor.troubles == []
