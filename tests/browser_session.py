"""An annotator at Argilla's own page, in a browser context of their own; many of them at once."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
from dataclasses import dataclass, field

import pytest
from page_client import Person
from playwright.async_api import BrowserContext, Page, async_playwright
from test_browser import BROWSERS, FLAGS, PATIENCE

EMPTY = ".wrapper--empty"
"""What the page shows where there is no record."""


def chromium() -> dict[str, object]:
    """How to start the browser; fails where there is none."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail("no Chromium found: `apt-get install chromium`, or `make browser`")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    return {"executable_path": path, "args": [*FLAGS, *as_root]}


@dataclass
class Session:
    """One annotator in a browser context of their own: what they did, and what went wrong."""

    url: str
    dataset: str
    person: Person
    wrong: list[str] = field(default_factory=list)
    submitted: int = 0

    async def work(self, context: BrowserContext) -> None:
        """Log in, open the data set, and answer until there is nothing left."""
        page = await context.new_page()
        self._watch(page)
        await self._open(page)
        pace = random.Random(self.person.name)
        before = ""
        while (text := await self._next(page, before)) is not None:
            await asyncio.sleep(pace.uniform(0.1, 1.0))
            await self._submit(page, text)
            before = text

    def _watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda said: self._note(said.type, said.text))
        page.on(
            "response",
            lambda answer: (
                self._note("error", f"{answer.status} {answer.url}")
                if answer.status >= 400
                else None
            ),
        )

    def _note(self, kind: str, text: str) -> None:
        # The page asks for a web font, which the policy refuses: that one error is ours.
        if kind == "error" and "fonts.googleapis.com" not in text:
            self.wrong.append(text)

    async def _open(self, page: Page) -> None:
        await page.goto(self.url)
        await page.locator("input[type=text]").fill(self.person.name)
        await page.locator("input[type=password]").fill(self.person.password)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_text("Your datasets").wait_for()
        await page.goto(f"{self.url}/dataset/{self.dataset}/annotation-mode")

    async def _next(self, page: Page, before: str) -> str | None:
        """The text in front, once it is another than before; None when there is no more."""
        shown = page.get_by_text(re.compile(r"^\s*text \d+\s*$"))
        if before:
            await page.get_by_text(before, exact=True).wait_for(state="detached")
        await shown.or_(page.locator(EMPTY)).first.wait_for()
        if await page.locator(EMPTY).count():
            return None
        return (await shown.first.inner_text()).strip()

    async def _submit(self, page: Page, text: str) -> None:
        await page.get_by_text("yes", exact=True).first.click()
        async with page.expect_response(lambda answer: "/responses" in answer.url) as taken:
            await page.get_by_role("button", name="Submit").click()
        if (await taken.value).status == 201:
            self.submitted += 1
        if toast := await page.locator(".notification__content, .toasted").count():
            self.wrong.append(f"{toast} notifications at {text}")


async def all_work(sessions: list[Session]) -> None:
    """Everybody at once, in one browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**chromium())  # type: ignore[arg-type]
        contexts = [await browser.new_context() for _ in sessions]
        for context in contexts:
            context.set_default_timeout(2 * PATIENCE)
        await asyncio.gather(
            *(one.work(context) for one, context in zip(sessions, contexts, strict=True))
        )
        await browser.close()
