"""Marks made with the mouse on Argilla's own page lie where they were made."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_session import chromium
from conftest import RunningArgilla
from factories import connected_project, make_generated
from page_client import Person
from playwright.sync_api import Browser, Page, expect, sync_playwright
from test_browser_argilla import new_context, open_queue

from annotate.accounts import add_users
from annotate.passwords import known_passwords
from annotate.pull import pull
from annotate.push import push
from annotate.server import connect

TEXT = "👩🏽 pays <b>90 &amp; more</b>\r\n\tin cafe\u0301s 🇩🇪 \x07 & 100 😀"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(**chromium())  # type: ignore[arg-type]


def mark(page: Page, kind: str, words: str) -> None:
    """Choose a kind of error, then drag the mouse over some words, as a person does."""
    page.get_by_text(kind, exact=True).first.click()
    left, top, right, bottom = page.evaluate(
        """words => {
            const node = document.querySelector("[class^=span-annotation__field]").firstChild;
            const at = node.textContent.indexOf(words);
            const range = document.createRange();
            range.setStart(node, at);
            range.setEnd(node, at + words.length);
            const box = range.getBoundingClientRect();
            return [box.left, box.top, box.right, box.bottom];
        }""",
        words,
    )
    middle = (top + bottom) / 2
    page.mouse.move(left + 1, middle)
    page.mouse.down()
    page.mouse.move((left + right) / 2, middle)
    page.mouse.move(right - 1, middle)
    page.mouse.up()


def test_marks_lie_where_they_were_made(
    tmp_path: Path,
    argilla_server: RunningArgilla,
    monkeypatch: pytest.MonkeyPatch,
    browser: Browser,
) -> None:
    """Before, between and after emoji, markup, a line end of two characters and an accent."""
    project = connected_project(tmp_path / "project", argilla_server, monkeypatch)
    pushed = push(project, make_generated(project, 1, 1, texts=[TEXT]), guideline="spans")
    with connect(project) as server:
        (user,) = add_users(project, server, [f"marker-{uuid.uuid4().hex[:8]}"])
        (batch,) = [server.batch(name) for name in pushed.metrics["batches"]]
    password = known_passwords(project)[user.name]
    page = new_context(browser).new_page()
    open_queue(page, argilla_server.url, Person(user.name, password, user.api_key), batch.id)

    expect(page.get_by_text("<b>90 &amp; more</b>")).to_be_visible()
    mark(page, "Untrue", "90 &amp; more")
    mark(page, "Padding", "cafe\u0301s")
    mark(page, "Personal data", "100 😀")
    page.get_by_text("Yes, and I have marked them").click()
    with page.expect_response(lambda answer: "/responses" in answer.url) as taken:
        page.get_by_role("button", name="Submit").click()
    assert taken.value.status == 201, taken.value.text()

    rows = pull(project, pushed).read("responses").to_pylist()
    (found,) = [json.loads(row["value"]) for row in rows if row["question"] == "errors"]
    marked = [(TEXT[s["start"] : s["end"]], s["label"]) for s in found["spans"]]
    assert marked == [
        ("90 &amp; more", "untrue"),
        ("cafe\u0301s", "padding"),
        ("100 😀", "personal_data"),
    ]
    assert found["length"] == len(TEXT)
