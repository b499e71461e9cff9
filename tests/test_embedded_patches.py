"""The patches of Argilla: each still needed, and each giving what the original gives.

They are tried on the database of an Argilla in this process, whose home is the tests' scratch.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from argilla_server._version import __version__
from argilla_server.api.schemas.v1.records_bulk import RecordsBulk, RecordsBulkCreate
from argilla_server.bulk import records_bulk
from argilla_server.bulk.records_bulk import CreateRecordsBulk
from argilla_server.database import AsyncSessionLocal, async_engine
from argilla_server.models import (
    Dataset,
    Field,
    MetadataProperty,
    Question,
    VectorSettings,
    Webhook,
    Workspace,
)
from argilla_server.models import database as models
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from annotate.embedded import database as databases
from annotate.embedded import patches
from annotate.embedded.engine import HandloomSearchEngine

QUESTIONS = [
    {"type": "text", "use_markdown": False},
    {"type": "rating", "options": [{"value": 1}, {"value": 2}]},
    {"type": "label_selection", "options": [{"value": "a", "text": "A"}], "visible_options": None},
    {"type": "ranking", "options": [{"value": "a", "text": "A", "description": None}]},
]
METADATA = [{"type": "terms", "values": ["a"]}, {"type": "integer", "min": 0, "max": 5}]


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    home = Path(os.environ["ARGILLA_HOME_PATH"])
    chosen = databases.choose(home, None)
    with databases.opened(chosen, home):
        databases.migrate(chosen)


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argilla as it came; whatever a test patches is put back."""
    for owner in (Question, MetadataProperty):
        monkeypatch.setattr(owner, "parsed_settings", owner.parsed_settings)
    for module, name in patches._EVENT_SENDERS:
        monkeypatch.setattr(module, name, getattr(module, name))


def in_database(work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
    async def session() -> Any:
        async with AsyncSessionLocal() as db:
            result = await work(db)
        await async_engine.dispose()
        return result

    return asyncio.run(session())


def count_adapters(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    built: list[object] = []
    adapter = models.TypeAdapter

    def counting(annotation: object) -> object:
        built.append(annotation)
        return adapter(annotation)

    monkeypatch.setattr(models, "TypeAdapter", counting)
    return built


def test_settings_are_parsed_alike_without_building_an_adapter_each_time(
    unpatched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = [Question(settings=settings) for settings in QUESTIONS]
    owners += [MetadataProperty(settings=settings) for settings in METADATA]
    built = count_adapters(monkeypatch)
    before = [owner.parsed_settings for owner in owners]
    assert len(built) == len(owners)  # else Argilla has learnt it and the patch can go
    assert patches.apply()
    after = [owner.parsed_settings for owner in owners]
    assert len(built) == len(owners)
    assert [type(settings) for settings in after] == [type(settings) for settings in before]
    assert after == before
    wrong = Question(settings={"type": "nonsense"})
    with pytest.raises(ValueError, match="nonsense"):
        _ = wrong.parsed_settings


def test_a_bulk_answers_alike_with_fewer_queries(unpatched: None) -> None:
    before, queries_before = in_database(push)
    assert patches.apply()
    after, queries_after = in_database(push)
    assert after == before
    # Six queries for each of the forty records: the webhooks, the data set and its relations.
    assert queries_before - queries_after >= 5 * 40


def test_webhooks_still_learn_of_every_record(
    unpatched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def with_webhook(db: AsyncSession) -> Any:
        webhook = await Webhook.create(db, url="http://localhost", events=["record.created"])
        try:
            return await push(db)
        finally:
            await webhook.delete(db)

    sent: list[str] = []

    async def remember(db: AsyncSession, kind: Any, record: Any) -> list[Any]:
        sent.append(kind.value)
        return []

    monkeypatch.setattr(records_bulk, "notify_record_event_v1", remember)
    assert patches.apply()
    in_database(with_webhook)
    assert sent == ["record.created"] * 40
    in_database(push)
    assert len(sent) == 40


def test_patching_twice_wraps_once(unpatched: None) -> None:
    patches.apply()
    first = records_bulk.notify_record_event_v1
    patches.apply()
    assert records_bulk.notify_record_event_v1 is first


def test_another_version_is_left_alone(unpatched: None, caplog: pytest.LogCaptureFixture) -> None:
    original = Question.parsed_settings
    with caplog.at_level(logging.WARNING):
        assert patches.apply("2.9.0") is False
    assert "2.9.0" in caplog.text
    assert Question.parsed_settings is original


def test_this_is_the_version_that_was_measured() -> None:
    assert __version__ == patches.PATCHED_VERSION


async def push(db: AsyncSession) -> tuple[Any, int]:
    """Push forty records; the answer without what differs by chance, and the number of queries."""
    dataset = await make_dataset(db)
    engine = HandloomSearchEngine(Path(os.environ["ARGILLA_HOME_PATH"]) / "index")
    await engine.create_index(dataset)
    items = [
        {
            "fields": {"text": f"record {number}"},
            "metadata": {"m0": "a", "m1": 1},
            "external_id": f"r{number}",
            "suggestions": [
                {"question_id": question.id, "value": value}
                for question, value in zip(dataset.questions, ["x", 1, "a"], strict=False)
            ],
            "vectors": {"v": [1.0, 2.0]},
        }
        for number in range(40)
    ]
    queries = 0

    def count(*_: object) -> None:
        nonlocal queries
        queries += 1

    event.listen(async_engine.sync_engine, "before_cursor_execute", count)
    try:
        made = await CreateRecordsBulk(db, engine).create_records_bulk(
            dataset, RecordsBulkCreate(items=items)
        )
    finally:
        event.remove(async_engine.sync_engine, "before_cursor_execute", count)
    await engine.delete_index(dataset)
    answer = RecordsBulk.model_validate(made).model_dump(mode="json")["items"]
    return [without_chance(item) for item in answer], queries


def without_chance(item: Any) -> Any:
    """An answer without ids and times."""
    if isinstance(item, dict):
        return {
            key: without_chance(value)
            for key, value in item.items()
            if not key.endswith(("id", "_at")) or key == "external_id"
        }
    return [without_chance(one) for one in item] if isinstance(item, list) else item


async def make_dataset(db: AsyncSession) -> Dataset:
    workspace = await Workspace.create(db, name=f"w-{uuid4().hex}")
    dataset = await Dataset.create(
        db,
        name="d",
        workspace_id=workspace.id,
        status="ready",
        distribution={"strategy": "overlap", "min_submitted": 1},
    )
    own = {"dataset_id": dataset.id, "title": "t"}
    await Field.create(db, name="text", settings={"type": "text"}, required=True, **own)
    await VectorSettings.create(db, name="v", dimensions=2, **own)
    for number, settings in enumerate(QUESTIONS):
        await Question.create(db, name=f"q{number}", settings=settings, **own)
    for number, settings in enumerate(METADATA):
        await MetadataProperty.create(db, name=f"m{number}", settings=settings, **own)
    loaded = await db.execute(
        select(Dataset)
        .filter_by(id=dataset.id)
        .options(
            selectinload(Dataset.fields),
            selectinload(Dataset.questions),
            selectinload(Dataset.metadata_properties),
            selectinload(Dataset.vectors_settings),
        )
        .execution_options(populate_existing=True)
    )
    found: Dataset = loaded.scalar_one()
    return found
