"""Embedded servers for the benchmark, their people and data sets; and data sets made by SQL."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import argilla as rg
import httpx

from annotate.embedded.home import credentials
from annotate.embedded.process import start, stop
from annotate.server import Server
from bench import argilla_content as content

WORKSPACE = "bench"
START_SECONDS = 3600.0
"""A start with a million records to index takes minutes."""


@dataclass(frozen=True)
class Running:
    """A running embedded server and its owner's key."""

    home: Path
    url: str
    pid: int
    key: str = field(repr=False)
    rebuilt: tuple[str, ...]
    """A line for each search index that was made anew at the start."""

    def sdk(self) -> rg.Argilla:
        """Argilla's own client."""
        return rg.Argilla(api_url=self.url, api_key=self.key)

    def ours(self) -> Server:
        """Our client."""
        return Server(self.url, self.key, workspace=WORKSPACE)

    def http(self, key: str) -> httpx.Client:
        """As somebody's browser asks; compressed answers are welcome to it."""
        headers = {"X-Argilla-Api-Key": key}
        return httpx.Client(base_url=f"{self.url}/api/v1/", headers=headers, timeout=600)

    def reindexing(self) -> tuple[int, float]:
        """Records and seconds of the rebuild at the start."""
        found = re.search(r"(\d+) records in ([\d.]+) seconds", " ".join(self.rebuilt))
        if found is None:
            raise LookupError(f"no search index was rebuilt: {self.rebuilt}")
        return int(found[1]), float(found[2])

    def memory(self) -> dict[str, float]:
        """Resident memory of the server, MB: now, and at most since its start."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.M))
        return {"rss_mb": int(found["VmRSS"]) / 1024, "peak_mb": int(found["VmHWM"]) / 1024}


@contextmanager
def running(home: Path, *, patched: bool = True) -> Iterator[Running]:
    """A server on a folder, until the block ends."""
    rebuilt: list[str] = []
    where = start(home, port=0, timeout=START_SECONDS, patched=patched, say=rebuilt.append)
    try:
        yield Running(home, where.url, where.pid, credentials(home).api_key, tuple(rebuilt))
    finally:
        stop(home)


def make_dataset(server: Running, name: str) -> rg.Dataset:
    """A published data set of every part that a record can have, and the people, if need be."""
    client = server.sdk()
    workspace = client.workspaces(WORKSPACE)
    if workspace is None:
        workspace = rg.Workspace(WORKSPACE, client=client).create()
        for person in content.PEOPLE:
            user = rg.User(person, password=uuid.uuid4().hex, role="annotator", client=client)
            user.create().add_to_workspace(workspace)
    settings = rg.Settings(
        fields=[rg.TextField("prompt"), rg.TextField("response")],
        questions=[
            rg.LabelQuestion("label", labels=list(content.LABELS)),
            rg.RatingQuestion("rating", values=list(content.RATINGS)),
            rg.TextQuestion("comment", required=False),
        ],
        metadata=[
            rg.TermsMetadataProperty("source"),
            rg.IntegerMetadataProperty("length"),
            rg.FloatMetadataProperty("score"),
        ],
        vectors=[rg.VectorField("embedding", dimensions=content.DIMENSIONS)],
        distribution=rg.TaskDistribution(min_submitted=content.OVERLAP),
    )
    return rg.Dataset(name, workspace=WORKSPACE, settings=settings, client=client).create()


class Seed:
    """Records put into the database of a stopped server, as Argilla would keep them."""

    def __init__(self, home: Path, dataset_id: str) -> None:
        self._db = sqlite3.connect(home / "argilla.db", isolation_level=None)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA cache_size = -1000000")
        self._dataset = dataset_id.replace("-", "")
        self._questions = self._ids("SELECT name, id FROM questions WHERE dataset_id = ?")
        self._people = dict(self._db.execute("SELECT username, id FROM users"))
        (self._vectors,) = self._ids(
            "SELECT name, id FROM vectors_settings WHERE dataset_id = ?"
        ).values()
        self._ids_made = 0
        self._began = datetime.now(UTC).replace(tzinfo=None)

    def _ids(self, sql: str) -> dict[str, str]:
        return dict(self._db.execute(sql, [self._dataset]))

    def _new_id(self) -> str:
        """Ids that grow with time, so that indexes grow at their ends."""
        self._ids_made += 1
        return uuid.UUID(int=(0x018F << 112) | (0x7 << 76) | (0x8 << 60) | self._ids_made).hex

    def records(self, n: int) -> Iterator[int]:
        """Add records 0 to n - 1; yields how many were added since the last time."""
        for chunk in range(-(-n // content.CHUNK)):
            first = chunk * content.CHUNK
            numbers = range(first, min(n, first + content.CHUNK))
            self._add(numbers, n)
            yield len(numbers)
        now = str(self._began)
        self._db.executemany(
            "INSERT OR IGNORE INTO datasets_users VALUES (?, ?, ?, ?)",
            [(self._dataset, self._people[name], now, now) for name in content.PEOPLE],
        )
        self._db.close()

    def _add(self, numbers: range, n: int) -> None:
        chunk = numbers.start // content.CHUNK
        rows: dict[str, list[tuple[Any, ...]]] = {
            table: [] for table in ("records", "vectors", "suggestions", "responses")
        }
        parts = zip(
            numbers, content.fields(chunk, n), content.vectors(chunk).tolist(), strict=False
        )
        for number, said, vector in parts:
            self._collect(rows, number, json.dumps(said), json.dumps(vector))
        self._db.execute("BEGIN")
        for table, columns in _COLUMNS.items():
            self._insert(table, columns, rows[table])
        self._db.execute("COMMIT")

    def _collect(
        self, rows: dict[str, list[tuple[Any, ...]]], number: int, said: str, vector: str
    ) -> None:
        when = str(self._began + timedelta(microseconds=number + 1))
        times = (when, when)
        record, answerers = self._new_id(), content.answerers(number)
        status = "completed" if len(answerers) >= content.OVERLAP else "pending"
        metadata = json.dumps(content.metadata(number))
        rows["records"].append(
            (record, said, metadata, content.item_id(number), status, self._dataset, *times)
        )
        rows["vectors"].append((self._new_id(), vector, record, self._vectors, *times))
        for question, suggested in content.suggestions(number).items():
            rows["suggestions"].append(
                (
                    self._new_id(),
                    json.dumps(suggested.value),
                    suggested.score,
                    suggested.agent,
                    record,
                    self._questions[question],
                    *times,
                )
            )
        said = json.dumps(content.values(number))
        for name in answerers:
            rows["responses"].append(
                (self._new_id(), said, "submitted", record, self._people[name], *times)
            )

    def _insert(self, table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * len(columns.split()))
        names = ", ".join(f'"{column}"' for column in columns.split())
        self._db.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608


_COLUMNS = {
    "records": "id fields metadata external_id status dataset_id inserted_at updated_at",
    "vectors": "id value record_id vector_settings_id inserted_at updated_at",
    "suggestions": "id value score agent record_id question_id inserted_at updated_at",
    "responses": "id values status record_id user_id inserted_at updated_at",
}
