"""What the web page adds to a stream, and whether many chats share it fairly.

    python playground/benchmark/web.py [--chats 30] [--json]

The model is an echo that writes a token every 20 ms, in a process of its own, so that the page is
what is measured; its reader is Debian's chromium. Told are, in ms unless a name says otherwise:
from Stop to a free slot, by the worker's own metric; the first text on the screen after the first
text of the API; what drawing a turn takes in conversations of 200 and of 10 turns; the slowest of
many chats over one alone, as their texts arrive, and what clicks take meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from playwright.async_api import Page, async_playwright

from playground.benchmark.web_crowd import CrowdedPage
from playground.benchmark.web_services import Addresses, services_of

CHROMIUM = "/usr/bin/chromium"
ROUNDS = 9
TURNS = 7
ANSWER_OF_HISTORY = "A sentence of an answer, **with** some `code`.\n\n" * 4
CROWDS_QUESTION = "x" * 300
RUNNING = re.compile(r"^\w+:num_requests_running\S* ([0-9.]+)", re.MULTILINE)

CLICK = "(button) => button.click()"  # a person's hand is not measured
# From a key press or a click until the frame after the page has drawn what came of it.
WATCH_JS = """([event, questions]) => {
    const chat = document.querySelector("#chat-chat");
    const seen = {asked: null, first: null, ended: null, gone: null};
    window.watched = new Promise((found) => {
        document.addEventListener(event, () => {
            const began = performance.now();
            const told = chat.querySelectorAll(".figures").length;
            const see = (what) => { seen[what] ??= performance.now() - began; };
            const look = () => {
                const asked = chat.querySelectorAll("[data-testid=user]").length;
                const answers = chat.querySelectorAll("[data-testid=bot]:not(:has(.figures))");
                const figures = chat.querySelectorAll(".figures").length;
                if (asked < questions) see("gone");
                if (asked > questions) see("asked");
                if (answers.length > questions && answers[questions].innerText.includes("答"))
                    see("first");
                if (figures > told) see("ended");
                if (seen.ended || seen.gone) found(seen); else requestAnimationFrame(look);
            };
            requestAnimationFrame(look);
        }, {once: true, capture: true});
    });
}"""


@asynccontextmanager
async def reader(url: str, outside: list[str]) -> AsyncGenerator[Page, None]:
    """A person's tab; URLs of other hosts that it asks for are put into `outside`."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        page = await (await browser.new_context(locale="en-US")).new_page()
        page.on("request", lambda request: outside.append(request.url))
        await page.goto(url)
        await page.wait_for_function("document.querySelector('#model input')?.value")
        yield page
        await browser.close()


async def questions_on(page: Page) -> int:
    """How many questions the page shows."""
    return await page.locator("#chat-chat [data-testid=user]").count()


async def type_in(page: Page, text: str) -> None:
    """Puts a text into the box."""
    await page.locator("#chat-box textarea").fill(text)


async def send(page: Page, text: str) -> dict[str, float]:
    """Sends a message; when its question, its first text and its figures were drawn, in ms."""
    await page.evaluate(WATCH_JS, ["keydown", await questions_on(page)])
    await type_in(page, text)
    await page.locator("#chat-box textarea").press("Enter")
    seen: dict[str, float] = await page.evaluate("window.watched")
    return seen


async def undo(page: Page) -> float:
    """Takes the last question back; ms until it is gone."""
    await page.evaluate(WATCH_JS, ["click", await questions_on(page)])
    await page.locator("button:not(.icon-button)", has_text="Undo").evaluate(CLICK)
    return float((await page.evaluate("window.watched"))["gone"])


async def first_of_api(http: httpx2.AsyncClient, api: str) -> float:
    """Milliseconds to the first text of an answer from the API server."""
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "echo", "messages": messages, "stream": True, "max_tokens": 8}
    began = time.perf_counter()
    async with http.stream("POST", api + "/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if "答" in line or "\\u7b54" in line:
                return 1000 * (time.perf_counter() - began)
    raise RuntimeError("the API gave no text")


async def stopping(page: Page, http: httpx2.AsyncClient, worker: str) -> float:
    """Milliseconds from the click on Stop until the worker counts no request."""

    async def running() -> float:
        found = RUNNING.search((await http.get(worker + "/metrics")).text)
        assert found is not None
        return float(found[1])

    asked = await questions_on(page)
    await type_in(page, CROWDS_QUESTION)
    await page.locator("#chat-box textarea").press("Enter")
    answers = page.locator("#chat-chat [data-testid=bot]:not(:has(.figures))")
    await answers.nth(asked).filter(has_text="xx").wait_for()
    assert await running() == 1
    began = time.perf_counter()
    await page.locator("#chat-box").get_by_label("Stop", exact=True).evaluate(CLICK)
    while await running():
        pass
    took = 1000 * (time.perf_counter() - began)
    await page.locator("#chat-chat .figures").nth(asked).wait_for()
    return took


async def turns_after(page: Page, turns: int, folder: Path) -> dict[str, float]:
    """Medians over some turns after a conversation of `turns`."""
    messages = [
        {"role": role, "content": text}
        for number in range(turns)
        for role, text in (("user", f"Question {number}"), ("assistant", ANSWER_OF_HISTORY))
    ]
    file = folder / "conversation.json"
    file.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    async with page.expect_file_chooser() as chooser:
        await page.locator("#import").click()
    await (await chooser.value).set_files(file)
    count = "document.querySelectorAll('#chat-chat [data-testid=user]').length"
    await page.wait_for_function(f"{count} == {turns}")
    seen = [await send(page, "x" * 40) for _ in range(TURNS)]
    return {
        what: statistics.median(each[what] for each in seen) for what in seen[0] if seen[0][what]
    }


async def crowd(page: Page, http: httpx2.AsyncClient, url: str, chats: int) -> dict[str, float]:
    """Many chats at a time, and a person who uses the page meanwhile."""
    visitors = CrowdedPage(http, url, (await http.get(url + "/config")).json())
    for name in ["alone", *(f"many{number}" for number in range(chats))]:
        await visitors.arrive(name)
    alone = await visitors.ask("alone", CROWDS_QUESTION)
    many = [asyncio.create_task(visitors.ask(f"many{n}", CROWDS_QUESTION)) for n in range(chats)]
    await asyncio.sleep(1)
    clicks = []
    while not any(each.done() for each in many):
        clicks += [(await send(page, "hi"))["asked"], await undo(page)]
    speeds = [(await each).tokens_per_s for each in many]
    return {
        "alone_tokens_per_s": alone.tokens_per_s,
        "slowest_of_many_over_alone": min(speeds) / alone.tokens_per_s,
        "clicks_median": statistics.median(clicks),
        "clicks_worst": max(clicks),
        "clicks": len(clicks),
    }


async def measure(urls: Addresses, chats: int, folder: Path) -> dict[str, float]:
    """All figures."""
    limits = httpx2.Limits(max_connections=None)
    asked_for: list[str] = []
    async with (
        httpx2.AsyncClient(timeout=120, trust_env=False, limits=limits) as http,
        reader(urls.page, asked_for) as page,
    ):
        await send(page, "warm")
        figures = {
            "stop": statistics.median([await stopping(page, http, urls.worker) for _ in range(3)])
        }
        plain, seen = [], []
        for _ in range(ROUNDS):
            plain.append(await first_of_api(http, urls.api))
            seen.append((await send(page, "hi"))["first"])
        figures |= {"first_api": statistics.median(plain), "first_page": statistics.median(seen)}
        for turns in (10, 200):
            took = await turns_after(page, turns, folder)
            figures |= {f"turn_{turns}_{what}": value for what, value in took.items()}
        await page.locator("#new-chat").click()
        await page.wait_for_function("!document.querySelector('#chat-chat [data-testid=user]')")
        await send(page, "hi")
        figures |= await crowd(page, http, urls.page, chats)
    inside = (urls.page, "data:", "blob:")
    figures["outside_requests"] = sum(not url.startswith(inside) for url in asked_for)
    return figures


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=30, help="chats at the same time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, services_of(Path(folder)) as urls:
        figures = asyncio.run(measure(urls, args.chats, Path(folder)))
    if args.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<28} {value:8.2f}")


if __name__ == "__main__":
    sys.exit(main())
