"""The patches of Argilla: each still needed, and each giving what the original gives.

The application answers in this process, on a database in the tests' scratch, once as Argilla came
and once with a patch; whatever differs by chance (ids, times) is taken out of the answers.
"""

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiosqlite
import httpx
import pytest
from argilla_server._version import __version__
from argilla_server.api.routes import api_v1
from argilla_server.api.schemas.v1 import records as schemas
from argilla_server.bulk import records_bulk
from argilla_server.database import AsyncSessionLocal, async_engine
from argilla_server.jobs import dataset_jobs, webhook_jobs
from argilla_server.models import (
    Dataset,
    Field,
    MetadataProperty,
    Question,
    Record,
    User,
    Vector,
    VectorSettings,
    Webhook,
    Workspace,
)
from argilla_server.models import database as models
from argilla_server.settings import settings
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from annotate.embedded import database as databases
from annotate.embedded import patches
from annotate.embedded.engine import HandloomSearchEngine

QUESTIONS = [
    {"type": "text", "use_markdown": False},
    {"type": "rating", "options": [{"value": n} for n in range(3)]},
    {"type": "label_selection", "options": [{"value": "a", "text": "A"}], "visible_options": None},
    {
        "type": "ranking",
        "options": [{"value": v, "text": v, "description": None} for v in ("a", "b")],
    },
    {
        "type": "span",
        "field": "text",
        "options": [{"value": "x", "text": "X", "description": None}],
        "allow_overlapping": False,
        "visible_options": None,
    },
]
METADATA = [{"type": "terms", "values": ["a"]}, {"type": "integer", "min": 0, "max": 5}]
SCORES = [0.0, 1.0, 1 / 7, 0.5, 2 / 3]
RECORDS = 40


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    home = Path(os.environ["ARGILLA_HOME_PATH"])
    chosen = databases.choose(home, None)
    with databases.opened(chosen, home):
        databases.migrate(chosen)
    settings.search_engine = "handloom"


@pytest.fixture(autouse=True)
def unpatched() -> Iterator[None]:
    """Argilla as it came; whatever a test patches is put back."""
    patches.undo()
    yield
    patches.undo()


def in_database(work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
    async def session() -> Any:
        async with AsyncSessionLocal() as db:
            result = await work(db)
        await async_engine.dispose()
        return result

    return asyncio.run(session())


class Team:
    """A published data set, its people, and a client under the owner's key."""

    def __init__(self, db: AsyncSession) -> None:
        self.db = db

    async def gather(self) -> "Team":
        """Make all of it."""
        db, name = self.db, uuid4().hex
        workspace = await Workspace.create(db, name=name)
        self.people = [
            await User.create(
                db,
                username=f"{name}-{role}-{number}",
                first_name=role,
                role=role,
                password_hash="-",
                api_key=f"{name}-{number}",
                workspaces=[workspace],
            )
            for number, role in enumerate(["owner", "annotator", "annotator"])
        ]
        self.dataset = await Dataset.create(
            db,
            name="d",
            workspace_id=workspace.id,
            status="ready",
            distribution={"strategy": "overlap", "min_submitted": 2},
        )
        own = {"dataset_id": self.dataset.id, "title": "t"}
        await Field.create(db, name="text", settings={"type": "text"}, required=True, **own)
        await Field.create(db, name="chat", settings={"type": "chat"}, required=False, **own)
        await VectorSettings.create(db, name="v", dimensions=2, **own)
        self.questions = [
            await Question.create(db, name=f"q{number}", settings=settings, **own)
            for number, settings in enumerate(QUESTIONS)
        ]
        for number, kind in enumerate(METADATA):
            seen = {"allowed_roles": ["admin", "annotator"] if number else ["admin"]}
            await MetadataProperty.create(db, name=f"m{number}", settings=kind, **seen, **own)
        for relation in ("fields", "questions", "metadata_properties", "vectors_settings"):
            await db.refresh(self.dataset, [relation])
        engine = await HandloomSearchEngine.new_instance()
        await engine.ping()
        await engine.create_index(self.dataset)
        self.path = f"/datasets/{self.dataset.id}/records"
        return self

    def client(self, person: int = 0) -> httpx.AsyncClient:
        """The application under one person's key."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=api_v1, raise_app_exceptions=False),
            base_url="http://argilla",
            headers={"X-Argilla-Api-Key": self.people[person].api_key},
        )

    def item(self, number: int, **changes: Any) -> dict[str, Any]:
        """A record with everything."""
        values = {"q0": {"value": "fine"}, "q1": {"value": 1}, "q2": {"value": "a"}}
        ranked = [{"value": "a", "rank": 1}, {"value": "b", "rank": 1}]
        people = [str(person.id) for person in self.people]
        suggested: list[Any] = [
            "x",
            number % 3,
            "a",
            ranked,
            [{"label": "x", "start": 0, "end": 2}],
        ]
        return {
            "fields": {"text": f"Grüße “{number}” \u2028", "chat": [{"role": "u", "content": "é"}]},
            "metadata": {"m0": "a", "m1": 1, "else": [1, None, 1e-7]} if number % 3 else None,
            "external_id": f"r{number}",
            "suggestions": [
                {"question_id": str(question.id), "value": value, "agent": "m", "type": "model"}
                | ({"score": SCORES[number % 5]} if not isinstance(value, list) else {})
                for question, value in zip(self.questions, suggested, strict=True)
            ],
            "vectors": {"v": [1.0, 2e-7 * number]},
            "responses": [
                {"user_id": people[0], "status": "submitted", "values": values},
                {"user_id": people[1], "status": "discarded"},
                {
                    "user_id": people[2],
                    "status": "submitted" if number % 2 else "draft",
                    "values": {**values, "q3": {"value": ranked}},
                },
            ][: number % 4],
            **changes,
        }

    def items(self, start: int = 0, **changes: Any) -> dict[str, Any]:
        return {"items": [self.item(n, **changes) for n in range(start, start + RECORDS)]}


async def every_request(db: AsyncSession) -> list[Any]:
    """Answers to what the patches touch, good and bad, without what differs by chance."""
    team = await Team(db).gather()
    path, answers = team.path, []

    async def ask(method: str, path: str, person: int = 0, **how: Any) -> Any:
        async with team.client(person) as client:
            answer = await client.request(method, path, **how)
        content = answer.json()
        if "search" in path:  # each person has an order of their own, by the records' ids
            content["items"].sort(key=lambda item: item["record"]["external_id"])
        answers.append((method, answer.status_code, without_chance(content)))
        return content

    made = await ask("PUT", f"{path}/bulk", json=team.items())
    await ask("PUT", f"{path}/bulk", json=team.items(start=30, metadata={"m1": 2}))
    again = [{"id": record["id"], "vectors": {"v": [3, 4]}} for record in made["items"][:5]]
    await ask("PUT", f"{path}/bulk", json={"items": again})
    await ask("POST", f"{path}/bulk", json=team.items(start=100))
    for start, wrong in enumerate(WRONG):
        mixed = [team.item(500 + start), team.item(600 + start, **wrong(team))]
        await ask("PUT", f"{path}/bulk", json={"items": mixed})
        await ask("POST", f"{path}/bulk", json={"items": mixed})
    await ask("PUT", f"{path}/bulk", person=1, json=team.items())
    for include in (None, "responses", "responses,suggestions,vectors", "vectors:v", "nonsense"):
        for page in ({"offset": 0, "limit": 10}, {"offset": 75, "limit": 100}, {"limit": 0}):
            params = page | ({"include": include} if include else {})
            await ask("GET", path, params=params)
    for person in range(3):
        await ask("GET", path, person=person)
        await ask("POST", f"/me{path}/search", person=person, json={}, params=PAGE)
    await ask("GET", f"/datasets/{uuid4()}/records")
    db.add(Vector(value=[float("nan")], record_id=UUID(made["items"][0]["id"]), **vector_of(team)))
    await ask("GET", path, params={"include": "vectors"})
    return answers


def vector_of(team: Team) -> dict[str, Any]:
    return {"vector_settings_id": team.dataset.vectors_settings[0].id}


PAGE = {"include": ["responses", "suggestions", "vectors"], "limit": 1000}

WRONG: list[Callable[[Team], dict[str, Any]]] = [
    lambda team: {"responses": [{"user_id": str(uuid4()), "status": "discarded"}]},
    lambda team: {
        "responses": [
            {
                "user_id": str(team.people[0].id),
                "status": "submitted",
                "values": {"q1": {"value": 9}},
            }
        ]
    },
    lambda team: {"fields": {}},
    lambda team: {"fields": {"text": "x", "more": "y"}},
    lambda team: {"metadata": {"m0": "b"}},
    lambda team: {"vectors": {"v": [1]}},
    lambda team: {"vectors": {"w": [1]}},
    lambda team: {"vectors": {"v": [1, "a"]}},
    lambda team: {"suggestions": [{"question_id": str(uuid4()), "value": 1}]},
    lambda team: {"suggestions": [{"question_id": str(team.questions[1].id), "value": "none"}]},
    lambda team: {"external_id": "r1"},
]


def without_chance(item: Any) -> Any:
    """An answer without ids and times."""
    if isinstance(item, dict):
        return {
            key: without_chance(value)
            for key, value in item.items()
            if not key.endswith("_at") and (not key.endswith("id") or key == "external_id")
        }
    if isinstance(item, str):
        return re.sub(r"[0-9a-f]{8}-?[0-9a-f-]{24,27}", "(id)", item)
    return [without_chance(one) for one in item] if isinstance(item, list) else item


@pytest.fixture(scope="module")
def answers_before(database: None) -> Any:
    patches.undo()
    return in_database(every_request)


@pytest.mark.parametrize("name", [*patches.PATCHES, "all"])
def test_every_request_is_answered_alike(name: str, answers_before: list[Any]) -> None:
    if name == "all":
        patches.apply()
    else:
        patches.PATCHES[name].apply()
    after = in_database(every_request)
    assert {200, 201, 403, 404, 422} <= {status for _, status, _ in after}
    for was, now in zip(answers_before, after, strict=True):
        assert now == was


@contextmanager
def counting(owner: Any, name: str) -> Iterator[list[Any]]:
    """Calls of something while the block runs."""
    calls: list[Any] = []
    original = getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return original(*arguments, **named)

    with pytest.MonkeyPatch.context() as replaced:
        replaced.setattr(owner, name, counted)
        yield calls


@contextmanager
def statements() -> Iterator[list[str]]:
    """What the database is asked while the block runs."""
    asked: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        asked.append(statement)

    event.listen(async_engine.sync_engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(async_engine.sync_engine, "before_cursor_execute", note)


async def push(db: AsyncSession) -> list[str]:
    """The statements of a bulk of records with everything."""
    team = await Team(db).gather()
    with statements() as asked:
        async with team.client() as client:
            answer = await client.put(f"{team.path}/bulk", json=team.items())
    assert answer.status_code == 200
    return asked


async def pull(db: AsyncSession) -> None:
    team = await Team(db).gather()
    async with team.client() as client:
        await client.put(f"{team.path}/bulk", json=team.items())
        with counting(schemas, "RecordGetterDict") as made:
            await client.get(team.path, params={"include": "responses"})
        assert len(made) == (0 if patches.PATCHES["listing"].applied else RECORDS)


def test_settings_are_parsed_alike_without_building_an_adapter_each_time() -> None:
    owners = [Question(settings=settings) for settings in QUESTIONS]
    owners += [MetadataProperty(settings=settings) for settings in METADATA]
    with counting(models, "TypeAdapter") as built:
        before = [owner.parsed_settings for owner in owners]
        assert len(built) == len(owners)  # else Argilla has learnt it and the patch can go
        patches.PATCHES["settings"].apply()
        after = [owner.parsed_settings for owner in owners]
        assert len(built) == len(owners)
    assert [type(settings) for settings in after] == [type(settings) for settings in before]
    assert after == before
    assert owners[0].parsed_settings is after[0]
    owners[0].settings["use_markdown"] = True
    assert owners[0].parsed_settings.use_markdown
    wrong = Question(settings={"type": "nonsense"})
    with pytest.raises(ValueError, match="nonsense"):
        _ = wrong.parsed_settings


def test_events_are_not_made_where_no_webhook_is() -> None:
    before = in_database(push)
    patches.PATCHES["webhooks"].apply()
    # Six queries for each record: the webhooks, the data set and its relations.
    assert len(before) - len(in_database(push)) >= 5 * RECORDS


def test_webhooks_still_learn_of_every_record_they_ask_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(webhook_jobs.notify_event_job, "delay", lambda *what: sent.append(what))

    async def with_webhook(db: AsyncSession) -> list[Any]:
        kinds = ["record.created", "response.created"]
        webhook = await Webhook.create(db, url="http://localhost", events=kinds)
        try:
            await push(db)
        finally:
            await webhook.delete(db)
        told = [(kind, without_chance(data)) for _, kind, _, data in sent]
        sent.clear()
        return told

    before = in_database(with_webhook)
    assert len(before) > RECORDS / 2
    patches.apply()
    assert in_database(with_webhook) == before
    in_database(push)
    assert sent == []


def test_a_bulk_asks_for_users_once() -> None:
    def of_users(asked: list[str]) -> int:
        return sum(1 for one in asked if "FROM users" in one and "users.id IN" in one)

    with_responses = RECORDS * 3 // 4
    assert of_users(in_database(push)) > with_responses  # else the patch can go
    patches.PATCHES["bulk"].apply()
    assert of_users(in_database(push)) <= 2  # to validate, and for the search engine


def test_a_bulk_is_answered_without_an_object_of_each_record() -> None:
    with counting(schemas, "RecordGetterDict") as made:
        in_database(push)
        assert len(made) == RECORDS  # else the patch can go
        patches.PATCHES["answers"].apply()
        in_database(push)
        assert len(made) == RECORDS


def test_a_page_is_listed_without_an_object_of_each_record() -> None:
    in_database(pull)
    patches.PATCHES["listing"].apply()
    in_database(pull)


def test_records_are_listed_without_sorting_the_data_set() -> None:
    async def plan(db: AsyncSession) -> str:
        listed = "SELECT id FROM records WHERE dataset_id = '' ORDER BY inserted_at LIMIT 9"
        return str((await db.execute(text(f"EXPLAIN QUERY PLAN {listed}"))).all())

    async def prepared(db: AsyncSession) -> str:
        await patches.prepare(async_engine)
        return await plan(db)

    assert "TEMP B-TREE" in in_database(prepared)  # else the patch can go
    patches.PATCHES["listing"].apply()
    assert "TEMP B-TREE" not in in_database(prepared)


def test_what_belongs_to_a_record_is_looked_up_by_the_record() -> None:
    """Not among all submitted responses, which SQLite takes to be as few if nobody tells it."""
    looked_up = [
        "SELECT * FROM responses WHERE record_id IN ('r') AND status = 'submitted'",
        "SELECT * FROM suggestions WHERE question_id = 'q' AND record_id IN ('r', 's')",
        "SELECT * FROM vectors WHERE vector_settings_id = 'v' AND record_id = 'r'",
        "SELECT count(*) FROM records LEFT JOIN responses ON responses.record_id = records.id"
        " AND responses.status = 'submitted' WHERE records.id IN ('r', 's')",
    ]

    async def plans(db: AsyncSession) -> list[str]:
        await patches.prepare(async_engine)
        return [
            str((await db.execute(text(f"EXPLAIN QUERY PLAN {query}"))).all())
            for query in looked_up
        ]

    async def forget(db: AsyncSession) -> None:
        await db.execute(text("DROP TABLE IF EXISTS sqlite_stat1"))
        await db.commit()

    in_database(forget)
    assert "status=?" in in_database(plans)[0]  # else the patch can go
    patches.PATCHES["one_hop"].apply()
    for _ in range(2):  # also at the next start
        assert all("record_id=?" in plan for plan in in_database(plans))


def test_a_page_of_the_queue_looks_up_membership_once() -> None:
    async def page(db: AsyncSession) -> int:
        team = await Team(db).gather()
        async with team.client() as client:
            await client.put(f"{team.path}/bulk", json=team.items())
        with statements() as asked:
            async with team.client(1) as client:
                answer = await client.post(f"/me{team.path}/search", json={}, params=PAGE)
        assert len(answer.json()["items"]) == RECORDS
        return sum(1 for one in asked if "FROM workspaces_users" in one)

    assert in_database(page) > RECORDS / 2  # else the patch can go
    patches.PATCHES["membership"].apply()
    assert in_database(page) == 1


def test_a_statement_takes_one_hop() -> None:
    async def ask(db: AsyncSession) -> int:
        await db.execute(select(User.id))
        with counting(aiosqlite.Connection, "_execute") as hops:
            await db.execute(select(User.id))
        return len(hops)

    assert in_database(ask) == 4  # else the patch can go
    patches.PATCHES["one_hop"].apply()
    assert in_database(ask) == 1


async def change_overlap(db: AsyncSession) -> tuple[Any, list[Any], int]:
    """Statuses, events and statements after the overlap was raised and lowered again."""
    team = await Team(db).gather()
    async with team.client() as client:
        await client.put(f"{team.path}/bulk", json=team.items())
    engine = await HandloomSearchEngine.new_instance()
    found = []
    with statements() as asked:
        for enough in (1, 3, 2):
            await team.dataset.update(db, distribution={"min_submitted": enough})
            await dataset_jobs.update_dataset_records_status_job(team.dataset.id)
            mine = select(Record.external_id, Record.status, Record.updated_at > Record.inserted_at)
            rows = await db.execute(
                mine.where(Record.dataset_id == team.dataset.id).order_by(Record.external_id)
            )
            found.append([tuple(row) for row in rows])
            found.append(await engine.get_dataset_progress(team.dataset))
    return found, [], len(asked)


@pytest.mark.parametrize("events", [[], ["record.completed", "record.updated"]])
def test_a_changed_overlap_settles_all_records_at_once(
    events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(webhook_jobs.notify_event_job, "delay", lambda *what: sent.append(what))

    async def changed(db: AsyncSession) -> Any:
        webhook = await Webhook.create(db, url="http://localhost", events=events)
        try:
            return await change_overlap(db)
        finally:
            await webhook.delete(db)

    def told() -> list[Any]:
        return [(kind, data["external_id"], data["status"]) for _, kind, _, data in sent]

    before, _, asked_before = in_database(changed)
    told_before = told()
    sent.clear()
    assert asked_before > 3 * 5 * RECORDS  # else the patch can go
    patches.PATCHES["status"].apply()
    after, _, asked_after = in_database(changed)
    assert after == before
    assert told() == told_before
    assert bool(told_before) == bool(events)
    if not events:
        assert asked_after < 3 * 12


def test_the_job_is_still_found_by_its_name() -> None:
    delay = dataset_jobs.update_dataset_records_status_job.delay
    patches.apply()
    patched = dataset_jobs.update_dataset_records_status_job
    assert patched.delay is delay
    assert f"{patched.__module__}.{patched.__qualname__}" == (
        "argilla_server.jobs.dataset_jobs.update_dataset_records_status_job"
    )


def test_patching_twice_wraps_once() -> None:
    patches.apply()
    first = records_bulk.notify_record_event_v1
    patches.apply()
    assert records_bulk.notify_record_event_v1 is first


def test_another_version_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    original = Question.parsed_settings
    with caplog.at_level(logging.WARNING):
        assert patches.apply("2.9.0") is False
    assert "2.9.0" in caplog.text
    assert Question.parsed_settings is original


def test_this_is_the_version_that_was_measured() -> None:
    assert __version__ == patches.PATCHED_VERSION
