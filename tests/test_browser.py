"""An annotator and an engineer at work, in a real Chromium: Argilla's page and the dashboard.

With HANDLOOM_SCREENSHOTS=1 the pictures in docs/screenshots are taken anew.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import RunningArgilla
from dashboard_project import HOSTILE, make_dashboard_project, make_failures
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from annotate.accounts import accounts, add_users
from annotate.push import push
from annotate.runs import Project
from annotate.server import KEY_VARIABLE, URL_VARIABLE, WORKSPACE_VARIABLE, connect
from streamlit_app.tables import FailureQuery, failure_page

SCREENSHOTS = Path(__file__).parent.parent / "docs" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Argilla asks for a font from there; nothing in these tests may depend on who answers.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
FONTS = "fonts.googleapis.com"
ANNOTATOR = "ada"
PATIENCE = 60_000  # milliseconds, for a machine under load


@dataclass(frozen=True)
class Office:
    """A project whose annotator has an account on the real server."""

    project: Project
    password: str = field(repr=False)
    argilla: str


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail("no Chromium found: `apt-get install chromium`, or `make browser`")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=[*FLAGS, *as_root])


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    yield context
    context.close()


@pytest.fixture(scope="module")
def office(
    argilla_server: RunningArgilla, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Office]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(URL_VARIABLE, argilla_server.url)
        environment.setenv(KEY_VARIABLE, argilla_server.api_key)
        environment.setenv(WORKSPACE_VARIABLE, "browser")
        project = make_dashboard_project(tmp_path_factory.mktemp("office") / "support-desk")
        with connect(project) as server:
            add_users(project, server, [ANNOTATOR])
            passwords = {user.name: user.password for user in accounts(project, server)}
        yield Office(project, passwords[ANNOTATOR] or "", argilla_server.url)


@pytest.fixture(scope="module")
def dashboard(office: Office) -> Iterator[str]:
    """Address of the dashboard, started as a user starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "align", "dashboard", "--port", str(port)]
    process = subprocess.Popen(argv, cwd=office.project.root)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/_stcore/health")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + PATIENCE / 1000
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.2)


@dataclass
class Watch:
    """What a page asked for from elsewhere, and whether a text of ours ran in it."""

    page: Page
    elsewhere: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if urlsplit(url).hostname not in (None, "127.0.0.1", FONTS):
            self.elsewhere.append(url)

    def assert_harmless(self) -> None:
        self.page.wait_for_timeout(500)  # an image or a handler would need a moment
        assert self.page.evaluate("window.pwned") is None
        assert self.elsewhere == []


def log_in(page: Page, office: Office) -> None:
    page.goto(office.argilla)
    page.locator("input[type=text]").fill(ANNOTATOR)
    page.locator("input[type=password]").fill(office.password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Your datasets")).to_be_visible()


def picture(page: Page, name: str) -> None:
    """Keep the page as a small PNG for the documentation, when asked to."""
    if not os.environ.get("HANDLOOM_SCREENSHOTS"):
        return
    from PIL import Image

    page.wait_for_timeout(1500)  # charts and fonts settle
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(256, kmeans=1, dither=Image.Dither.NONE).save(
        SCREENSHOTS / f"{name}.png", optimize=True
    )


def batch_address(office: Office, name: str) -> str:
    with connect(office.project) as server:
        return f"{server.url}/dataset/{server.batch(name).id}/annotation-mode"


def test_an_annotator_reads_the_guideline_and_submits(
    office: Office, context: BrowserContext
) -> None:
    run = office.project.latest("generate", round=1)
    prompts = run.read("prompts", ["prompt_id"])["prompt_id"].to_pylist()[:2]
    push(office.project, run, batch="first", overlap=1, select=prompts)
    page = context.new_page()
    log_in(page, office)
    page.get_by_text("first", exact=True).click()
    expect(page.get_by_text("1 of 2")).to_be_visible()
    expect(page.get_by_text("0.00%")).to_be_visible()

    page.get_by_role("button", name="Expand Panel").filter(has_text="Guidelines").click()
    heading = page.get_by_role("heading", name="Choosing between two responses")
    expect(heading).to_be_visible()
    picture(page, "argilla-guideline")
    page.get_by_role("button", name="Collapse Panel").filter(has_text="Guidelines").click()
    expect(heading).not_to_be_visible()

    page.get_by_text("A is better", exact=True).click()
    page.get_by_text("At least one can be used").click()
    picture(page, "argilla-item")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("50.00%")).to_be_visible()

    with connect(office.project) as server:
        (response,) = server.responses(server.batch("first"))
    assert (response.annotator, response.status) == (ANNOTATOR, "submitted")
    assert response.values["preference"]["value"] == "a_better"


def test_chosen_failures_are_sent_and_found_in_argilla(
    office: Office, dashboard: str, context: BrowserContext
) -> None:
    run = office.project.latest("failures")
    chosen = failure_page(run, FailureQuery(), 1, 10).rows[:2]
    page = context.new_page()
    log_in(page, office)
    page.goto(f"{dashboard}/failures")
    for number in (1, 2):
        page.get_by_text(f"Failure {number}", exact=True).click()
        expect(page.get_by_label(f"Failure {number}", exact=True)).to_be_checked()
    picture(page, "failures")
    page.get_by_role("button", name="Send 2 to Argilla").click()
    expect(page.get_by_text("2 items in Argilla")).to_be_visible()
    expect(page.get_by_role("button", name="Send to Argilla")).to_be_disabled()
    picture(page, "failures-sent")

    address = page.get_by_role("link", name="Open in Argilla").get_attribute("href")
    page.goto(address or "")
    expect(page.get_by_text("1 of 2")).to_be_visible()
    for number in (1, 2):
        expect(page.get_by_text(f"{number} of 2")).to_be_visible()
        shown = [row for row in chosen if page.get_by_text(row["prompt_text"]).is_visible()]
        assert len(shown) == 1
        chosen.remove(shown[0])
        expect(page.get_by_text(shown[0]["completion"])).to_be_visible()
        expect(page.get_by_text(shown[0]["versus_completion"])).to_be_visible()
        if number == 1:
            picture(page, "argilla-failure")
            page.locator("body").press("ArrowRight")


def test_what_is_searched_for_stands_in_the_address(
    dashboard: str, context: BrowserContext
) -> None:
    page = context.new_page()
    page.goto(f"{dashboard}/failures")
    search = page.get_by_label("Search")
    search.fill("order 4102")
    search.press("Enter")
    expect(page.get_by_text("1 match", exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile(r"[?&]text=order"))
    page.reload()
    expect(page.get_by_text("1 match", exact=True)).to_be_visible()
    expect(search).to_have_value("order 4102")


@pytest.mark.parametrize(
    ("path", "heading"),
    [
        ("", "Rounds"),
        ("agreement", "Agreement"),
        ("training", "Training curves"),
    ],
)
def test_the_charts_are_drawn(
    dashboard: str, context: BrowserContext, path: str, heading: str
) -> None:
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{dashboard}/{path}")
    expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    expect(page.locator("[data-testid=stVegaLiteChart] svg").first).to_be_visible()
    picture(page, path or "rounds")
    assert errors == []


def test_a_hostile_completion_is_text_in_the_dashboard(
    dashboard: str, context: BrowserContext
) -> None:
    page = context.new_page()
    watch = Watch(page)
    page.goto(f"{dashboard}/failures?text=evil.invalid")
    expect(page.get_by_text("<script>window.pwned = 1").first).to_be_visible()
    expect(page.get_by_text("![pixel](http://evil.invalid/markdown.png)").first).to_be_visible()
    watch.assert_harmless()


def test_a_hostile_completion_is_text_in_argilla(office: Office, context: BrowserContext) -> None:
    run = make_failures(office.project, 1, round=9)
    push(office.project, run, batch="hostile", overlap=1)
    page = context.new_page()
    watch = Watch(page)
    log_in(page, office)
    page.goto(batch_address(office, "hostile"))
    expect(page.get_by_text("1 of 1")).to_be_visible()
    for line in HOSTILE.splitlines():
        expect(page.get_by_text(line).first).to_be_visible()
    watch.assert_harmless()
