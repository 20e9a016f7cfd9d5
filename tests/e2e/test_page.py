"""The page in a real browser: ask, watch, open a citation, survive a lost connection."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
import uvicorn
from playwright.async_api import Browser, Page, async_playwright

from streams.model import DocumentStage
from tests.fakes.edge import FakeEdge, FakeHistory, a_document, a_passage, a_piece, an_edge

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install the package 'chromium' to run this test"),
    pytest.mark.slow,
]

CITED = a_passage(quote="kept for 7 days")


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, timeout=120_000, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        await browser.close()


@contextlib.asynccontextmanager
async def serving(fake: FakeEdge) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(fake.app, lifespan="off", log_config=None, timeout_graceful_shutdown=2))
    server.capture_signals = contextlib.nullcontext  # signals are pytest's
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        await task


@pytest.fixture
async def fake() -> FakeEdge:
    fake = an_edge()
    fake.questions.pause_s = 0.02
    return fake


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    context.set_default_timeout(60_000)
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    yield page
    await context.close()
    assert problems == []


async def ask(page: Page, url: str, question: str = "How long are records kept?") -> None:
    await page.goto(url)
    await page.get_by_label("Ask the documents").fill(question)
    await page.keyboard.press("Enter")


async def test_an_answer_streams_in_with_its_sources(fake, page):
    async with serving(fake) as url:
        await ask(page, url)
        await page.locator("#facts:not(:empty)").wait_for()
        assert "Records are kept for 7 days" in await page.locator("#answer").inner_text()
        assert await page.locator("#sources li").count() == 1
        assert await page.locator("#stop").is_hidden()


async def test_a_citation_opens_at_its_passage(fake, page):
    # Code points beyond the basic plane before the passage: offsets must not be counted in UTF-16 units.
    pieces = (("🦊" * 10 + "x" * 110, 0), (CITED.text, 120), (" What follows.", 187))
    fake.directory.passages = [a_piece(text, start, ordinal=n) for n, (text, start) in enumerate(pieces)]
    async with serving(fake) as url:
        await ask(page, url)
        await page.locator("#facts:not(:empty)").wait_for()
        await page.locator(".cite").first.click()
        assert await page.locator("#reader-text > mark").inner_text() == CITED.text
        assert await page.locator("#reader-note").is_hidden()
        await page.keyboard.press("Escape")
        assert await page.locator("#reader").is_hidden()


@pytest.mark.parametrize(
    ("kept", "shown", "note"),
    [
        (True, CITED.text, "This is the text that was cited. The document has changed since."),
        (False, "a newer text", "This is the document's present text"),
    ],
)
async def test_the_reader_is_told_which_text_a_citation_opens(page, kept, shown, note):
    history = FakeHistory([a_piece("x" * 120), a_piece(CITED.text, 120, ordinal=1)] if kept else [])
    fake = an_edge(time_travel=SimpleNamespace(history=history))
    fake.directory.passages = [a_piece("y" * 120 + "a newer text", revision=9)]
    async with serving(fake) as url:
        await ask(page, url)
        await page.locator("#facts:not(:empty)").wait_for()
        await page.locator(".cite").first.click()
        await page.locator("#reader-note", has_text=note).wait_for()
        assert await page.locator("#reader-text > mark").inner_text() == shown


async def test_text_of_documents_never_runs(fake, page):
    fake.questions.tokens = ['<img src=x onerror="document.title=1">', "<script>document.title=1</script> [1]"]
    async with serving(fake) as url:
        await ask(page, url, "<b>bold?</b>")
        await page.locator("#facts:not(:empty)").wait_for()
        assert "<img src=x" in await page.locator("#answer").inner_text()
        assert await page.locator("#answer img, #answer script, #asked b").count() == 0
        assert await page.title() == "Leat"


async def test_the_page_shows_where_documents_stand(fake, page):
    fake.directory.documents["broken.pdf"] = a_document(
        "broken.pdf", stage=DocumentStage.FAILED, failure_reason="encrypted", failure_detail="it needs a password"
    )
    async with serving(fake) as url:
        await page.goto(url)
        await page.get_by_text("it needs a password").wait_for()
        assert await page.locator("[data-count=received]").inner_text() == "128"


async def test_stop_ends_the_answer(fake, page):
    fake.questions.hold = asyncio.Event()
    async with serving(fake) as url:
        await ask(page, url)
        await page.get_by_role("button", name="Stop").click()
        async with asyncio.timeout(60):
            while not fake.stream.stopped:
                await asyncio.sleep(0.01)
        fake.questions.failure = ("stopped", "it was stopped")
        fake.questions.hold.set()
        await page.get_by_text("Stopped.").wait_for()


async def test_it_fits_a_phone_without_scrolling_sideways(fake, page):
    await page.set_viewport_size({"width": 360, "height": 740})
    async with serving(fake) as url:
        await ask(page, url, "long" * 200)
        await page.locator("#facts:not(:empty)").wait_for()
        box = await page.locator("body").bounding_box()
        assert box["width"] <= 360
        for selector in ("#ask", "#result", "aside"):
            inner = await page.locator(selector).bounding_box()
            assert inner["x"] >= 0
            assert inner["x"] + inner["width"] <= 360
