"""Takes the place of the suite's tests/unit/search_engine/conftest.py: our engine is tested.

Some tests prepare responses, vectors and whole indexes through Elasticsearch's own client; here
what they write so goes to our index.
"""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from argilla_server.models import Record
from argilla_server.settings import settings
from opensearchpy import helpers
from tests.database import TestSession

from annotate.embedded.documents import RecordRow, ResponseRow, VectorRow, record_row
from annotate.embedded.engine import HandloomSearchEngine
from annotate.embedded.index import DatasetIndex

FOLDER = Path(settings.home_path) / "index"
PREFIX = "rg."
_NO_ANSWER = ("id", "status", "user_id")


def dataset_id(index_name: str) -> UUID:
    """The data set of an index of Elasticsearch."""
    return UUID(index_name.removeprefix(PREFIX))


class TestedEngine(HandloomSearchEngine):
    """Our engine, and the one private method of Argilla's own engines that tests call."""

    __test__ = False

    async def _bulk_op_request(self, actions: list[dict[str, Any]]) -> None:
        """Give records vectors."""
        vectors: defaultdict[tuple[str, UUID], dict[str, VectorRow]] = defaultdict(dict)
        for action in actions:
            for name, value in action["doc"].items():
                settings_id = name.removeprefix("vectors.")
                vectors[action["_index"], action["_id"]][settings_id] = VectorRow(value)
        for (index_name, record_id), rows in vectors.items():
            record = await TestSession().get(Record, record_id)
            for name in ("suggestions", "responses", "vectors"):
                await getattr(record.awaitable_attrs, name)
            row = record_row(record)
            row = replace(row, vectors={**row.vectors, **rows})
            self.index(dataset_id(index_name)).put_records([row])


class Client:
    """What the behavioural tests use of Elasticsearch's client."""

    def __init__(self, engine: TestedEngine) -> None:
        self.indices = self
        self._engine = engine
        self._responses: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def create(self, index: str, body: Any) -> None:
        path = FOLDER / f"{dataset_id(index)}.db"
        DatasetIndex.create(path, {}, ["text"], ["text"]).close()

    def refresh(self, index: str) -> None:
        """What was written can be searched at once."""

    def delete(self, index: str) -> None:
        self._engine.index(dataset_id(index)).close()

    def get(self, index: str, id: UUID) -> dict[str, Any]:
        return {"_source": {"responses": list(self._responses[str(id)])}}

    def update(self, index: str, id: UUID, body: Any) -> None:
        self._responses[str(id)] = body["doc"]["responses"]
        for said in body["doc"]["responses"]:
            answers = {name: value for name, value in said.items() if name not in _NO_ANSWER}
            response, user = UUID(said["id"]).bytes, UUID(said["user_id"]).bytes
            row = ResponseRow(response, user, said["status"], 0, answers)
            self._engine.index(dataset_id(index)).put_response(id.bytes, row)

    def bulk(self, actions: list[dict[str, Any]]) -> None:
        for action in actions:
            row = RecordRow(action["_id"].bytes, None, "pending", 0, 0, action["fields"], {})
            self._engine.index(dataset_id(action["_index"])).put_records([row])


@pytest.fixture
def search_engine() -> TestedEngine:
    FOLDER.mkdir(exist_ok=True)
    return TestedEngine(FOLDER)


@pytest.fixture(autouse=True)
def opensearch(search_engine: TestedEngine, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(helpers, "bulk", lambda client, actions: client.bulk(actions))
    return Client(search_engine)
