"""Argilla's own page in a real Chromium: hostile records do nothing, fifteen work at once."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import argilla as rg
import pytest
from browser_session import EMPTY, Session, all_work, chromium
from conftest import RunningArgilla
from factories import connected_project
from hostile_texts import TRAP, Elsewhere, hostile_texts
from page_client import Person, Team
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from test_browser import PATIENCE

from annotate.accounts import accounts, add_users
from annotate.embedded.home import credentials
from annotate.embedded.process import start, stop
from annotate.push import push
from annotate.records import output_rows, table_from_rows, text_message
from annotate.runs import Project, Run, RunPlan
from annotate.server import connect

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PEOPLE = 15
RECORDS = 150


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(**chromium())  # type: ignore[arg-type]


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    host = Elsewhere()
    yield host
    host.close()


@dataclass
class Watch:
    """Whether a page asked for anything of another origin, opened a dialog, or ran a script."""

    page: Page
    origin: str
    strange: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("dialog", lambda dialog: self.strange.append(dialog.message))
        self.page.on("requestfinished", lambda request: self._note(request.url))
        self.page.on("framenavigated", lambda frame: self._note(frame.url))
        self.page.on("popup", lambda popup: self.strange.append(popup.url))

    def _note(self, url: str) -> None:
        if not url.startswith((self.origin, "data:", "about:", "chrome-error:")):
            self.strange.append(url)

    def assert_harmless(self, elsewhere: Elsewhere) -> None:
        for trap in self.page.locator(f"#{TRAP}").all():
            trap.click(no_wait_after=True)
        self.page.wait_for_timeout(300)  # a handler or an image would need a moment
        assert self.page.evaluate("window.pwned") is None
        assert self.strange == []
        assert elsewhere.asked == []


def open_queue(page: Page, url: str, person: Person, dataset: str) -> None:
    page.goto(url)
    page.locator("input[type=text]").fill(person.name)
    page.locator("input[type=password]").fill(person.password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Your datasets")).to_be_visible()
    page.goto(f"{url}/dataset/{dataset}/annotation-mode")
    expect(page.get_by_text(re.compile(r"^\s*of \d+"))).to_be_visible()


def new_context(browser: Browser, *, bypass_csp: bool = False) -> BrowserContext:
    context = browser.new_context(viewport={"width": 1360, "height": 900}, bypass_csp=bypass_csp)
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    return context


def raw_dataset(team: Team, elsewhere: Elsewhere) -> str:
    """A data set as anybody with a key may make it, hostile wherever a text goes."""
    texts = hostile_texts(elsewhere.url)
    every = "\n\n".join(texts.values())
    settings = rg.Settings(
        guidelines=f"# Guideline\n\n{every}",
        fields=[
            rg.TextField("text", title=f"Text {texts['script']}"),
            rg.TextField("marked", use_markdown=True),
            rg.ChatField("chat"),
            rg.ChatField("marked_chat", use_markdown=True),
            rg.CustomField("custom", template="<p>{{record.fields.custom.said}}</p>"),
            rg.CustomField("script", template=every, advanced_mode=True),
        ],
        questions=[
            rg.LabelQuestion("label", labels={"yes": f"yes {texts['svg']}", "no": "no"}),
            rg.TextQuestion("reason", description=every[:900], use_markdown=True, required=False),
        ],
        metadata=[rg.TermsMetadataProperty("tag")],
    )
    dataset = rg.Dataset(
        f"raw-{uuid.uuid4().hex[:8]}",
        workspace=team.workspace,
        settings=settings,
        client=team.client,
    ).create()
    dataset.records.log([raw_record(name, text) for name, text in texts.items()])
    return str(dataset.id)


def raw_record(name: str, text: str) -> rg.Record:
    said = f"This is: {name}. {text}"
    talk = [{"role": "user", "content": said}, {"role": "<svg onload=pwned=1>", "content": text}]
    fields = {"text": said, "marked": said, "chat": talk, "marked_chat": talk}
    return rg.Record(
        id=name,
        fields={**fields, "custom": {"said": text}, "script": {"said": text}},
        metadata={"tag": text},
        suggestions=[rg.Suggestion("reason", text)],
    )


def submit(page: Page, label: str) -> None:
    """Answer the record in front, and see that the server took it."""
    page.get_by_text(label, exact=True).first.click()
    with page.expect_response(lambda answer: "/responses" in answer.url) as taken:
        page.get_by_role("button", name="Submit").click()
    assert taken.value.status == 201


def test_hostile_records_made_by_others_do_nothing(
    argilla_server: RunningArgilla, browser: Browser, elsewhere: Elsewhere
) -> None:
    team = Team(argilla_server, people=1)
    dataset = raw_dataset(team, elsewhere)
    context = new_context(browser)
    page = context.new_page()
    watch = Watch(page, team.server.url)
    open_queue(page, team.server.url, team.people[0], dataset)
    page.get_by_role("button", name="Expand Panel").filter(has_text="Guidelines").click()
    expect(page.get_by_role("heading", name="Guideline", exact=True)).to_be_visible()
    page.get_by_role("button", name="Collapse Panel").filter(has_text="Guidelines").click()
    left = set(hostile_texts(""))
    while left:
        shown = page.get_by_text(re.compile(r"This is: ")).first.inner_text()
        name = next(name for name in left if f"This is: {name}." in shown)
        left.remove(name)
        watch.assert_harmless(elsewhere)
        submit(page, "no")
        expect(page.get_by_text(f"This is: {name}.").first).not_to_be_visible()
    expect(page.locator(EMPTY)).to_be_visible()
    assert set(team.submissions(dataset).values()) == {1}
    context.close()


def test_without_the_policy_the_same_records_do_harm(
    argilla_server: RunningArgilla, browser: Browser, elsewhere: Elsewhere
) -> None:
    """The proof that the test before can fail."""
    team = Team(argilla_server, people=1)
    dataset = raw_dataset(team, elsewhere)
    context = new_context(browser, bypass_csp=True)
    page = context.new_page()
    open_queue(page, team.server.url, team.people[0], dataset)
    page.wait_for_function("window.pwned === 1")
    assert elsewhere.asked
    context.close()


def hostile_run(project: Project, elsewhere: Elsewhere) -> Run:
    """Conversations and completions, each of a hostile text."""
    prompts, outputs = [], []
    for name, text in hostile_texts(elsewhere.url).items():
        talk = [f"Hello. {text}", text, f"And: {name}. {text}"]
        roles = ("user", "assistant", "user")
        prompt = {"prompt_id": name, "source": "x", "split": "train", "metadata": "{}"}
        messages = [text_message(role, said) for role, said in zip(roles, talk, strict=True)]
        prompts.append({**prompt, "messages": messages})
        outputs += output_rows(name, [("m1", text), ("m2", f"Or: {text}")], "{}")
    with project.draft(RunPlan("generate", 1, settings={}, seed=0)) as draft:
        draft.write("prompts", table_from_rows("prompts", prompts))
        draft.write("outputs", table_from_rows("outputs", outputs))
    return draft.run


def test_hostile_records_that_we_push_are_shown_as_they_are(
    argilla_server: RunningArgilla,
    browser: Browser,
    elsewhere: Elsewhere,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Escaped: even without the policy nothing runs."""
    project = connected_project(tmp_path, argilla_server, monkeypatch)
    with connect(project) as server:
        add_users(project, server, ["grace"])
        (grace,) = [one for one in accounts(project, server) if one.name == "grace"]
    push(project, hostile_run(project, elsewhere), batch="hostile", overlap=1)
    with connect(project) as server:
        dataset = str(server.batch("hostile").id)
    context = new_context(browser, bypass_csp=True)
    page = context.new_page()
    watch = Watch(page, argilla_server.url)
    open_queue(page, argilla_server.url, Person("grace", grace.password or "", ""), dataset)
    waiting = hostile_texts(elsewhere.url)
    left = dict(waiting)
    while left:
        shown = page.get_by_text(re.compile(r"And: ")).first.inner_text()
        name = next(name for name in left if f"And: {name}." in shown)
        text = left.pop(name)
        for said in (text, f"Or: {text}", f"Hello. {text}"):
            expect(page.get_by_text(said).first).to_be_visible()
        watch.strange = [url for url in watch.strange if "googleapis" not in url]
        watch.assert_harmless(elsewhere)
        submit(page, "A is better")
        expect(page.get_by_text(f"And: {name}.")).not_to_be_visible()
    with connect(project) as server:
        assert len(list(server.responses(server.batch("hostile")))) == len(waiting)
    context.close()


@pytest.mark.slow
def test_fifteen_browsers_at_once_lose_nothing_and_hardly_answer_twice(
    argilla_server: RunningArgilla, tmp_path: Path
) -> None:
    team = Team(argilla_server, people=PEOPLE)
    dataset = team.dataset(RECORDS)
    sessions = [Session(team.server.url, dataset, person) for person in team.people]
    with ThreadPoolExecutor(1) as apart:  # the tests' own browser has this thread's event loop
        apart.submit(asyncio.run, all_work(sessions)).result()
    assert [one.wrong for one in sessions] == [[]] * PEOPLE
    counts = team.submissions(dataset)
    assert sum(counts.values()) == sum(one.submitted for one in sessions)
    assert min(counts.values()) >= 1
    over = sum(counts.values()) / RECORDS - 1
    print(f"over-submission: {over:.1%} with leases, {unleased(tmp_path / 'argilla'):.1%} without")
    assert over <= 0.01


def unleased(home: Path) -> float:
    """Over-submission of as many people on as many records without leases, paging as the page."""
    address = start(home, port=0, lease_minutes=0)
    try:
        own = credentials(home)
        team = Team(RunningArgilla(address.url, own.api_key, own.password, home), people=PEOPLE)
        dataset = team.dataset(RECORDS)
        pages = [team.page(dataset, person) for person in range(PEOPLE)]
        with ThreadPoolExecutor(PEOPLE) as people:
            list(people.map(lambda page: page.work(0.1), pages))
        return sum(team.submissions(dataset).values()) / RECORDS - 1
    finally:
        stop(home)
