"""Annotators: their accounts, and what the web page does with their queue, over REST.

As its bundled code does (argilla_server 2.8.0, `static/_nuxt`): a store of numbered records, a page
fetched in the background when half of one is left, with what is in the store and not answered as
the offset. `tests/test_browser_argilla.py` does the same with the page itself.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import argilla as rg
import httpx
from conftest import RunningArgilla

PAGE = 10
PENDING = {
    "filters": {
        "and": [
            {
                "type": "terms",
                "scope": {"entity": "response", "property": "status"},
                "values": ["pending"],
            },
            {
                "type": "terms",
                "scope": {"entity": "record", "property": "status"},
                "values": ["pending"],
            },
        ]
    }
}


@dataclass
class PageClient:
    """One person at one data set, with their API key."""

    url: str
    dataset_id: str
    api_key: str = field(repr=False)
    many: int = PAGE
    query: dict[str, Any] = field(default_factory=lambda: PENDING)
    store: list[str] = field(default_factory=list)
    """Record ids in the order of their page numbers."""
    answered: set[str] = field(default_factory=set)
    at: int = 0
    """Of the record in front, in `store`."""
    total: int = 0
    values: dict[str, Any] = field(default_factory=lambda: {"label": {"value": "yes"}})
    """What it answers to every record."""
    repeated: int = 0
    """Records that it was given although it had them: without leases that happens."""

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers={"X-Argilla-Api-Key": self.api_key},
            timeout=60,
        )

    def fetch(self, offset: int) -> list[str]:
        """A page of the queue, as the server gives it."""
        answer = self.http.post(
            f"/me/datasets/{self.dataset_id}/records/search",
            params={
                "include": ["responses", "suggestions"],
                "offset": offset,
                "limit": self.many,
            },
            json=self.query,
        ).raise_for_status()
        self.total = answer.json()["total"]
        return [item["record"]["id"] for item in answer.json()["items"]]

    def load(self) -> Sequence[str]:
        """Open the data set, or load the page anew."""
        self.store, self.at = self.fetch(0), 0
        self._first_total = self.total  # later ones the page ignores
        self.answered.clear()
        return self.store

    def next(self) -> str | None:
        """The record in front, fetched if need be; None if there is none."""
        ahead = len(self.store) - self.at - 1
        if ahead < 0 or (ahead <= self.many // 2 and self._first_total != len(self.store)):
            self._append(self.fetch(self.unanswered))
        return self.store[self.at] if self.at < len(self.store) else None

    @property
    def unanswered(self) -> int:
        """Records in the store that are not answered: the offset at which the page goes on."""
        return len(self.store) - len(self.answered)

    def answer(self, record: str, status: str = "submitted") -> None:
        """Answer the record in front and turn to the next."""
        body = {"status": status, "values": self.values}
        self.http.post(f"/records/{record}/responses", json=body).raise_for_status()
        self.answered.add(record)
        self.at += 1

    def work(self, pause: float = 0.0, quit: threading.Event | None = None) -> int:
        """Answer all there is, with a pause before each; how many were answered."""
        waiting = quit or threading.Event()
        done = 0
        self.load()
        while (record := self.next()) is not None:
            if waiting.wait(pause):
                break
            self.answer(record)
            done += 1
        return done

    def _append(self, records: Sequence[str]) -> None:
        new = [record for record in records if record not in self.store]
        self.repeated += len(records) - len(new)
        self.store.extend(new)


@dataclass(frozen=True)
class Person:
    """An annotator's account."""

    name: str
    password: str = field(repr=False)
    api_key: str = field(repr=False)


class Team:
    """A workspace on the real server with annotators of its own."""

    def __init__(self, server: RunningArgilla, people: int) -> None:
        self.server = server
        self.client = rg.Argilla(api_url=server.url, api_key=server.api_key)
        self.owner = httpx.Client(
            base_url=f"{server.url}/api/v1",
            headers={"X-Argilla-Api-Key": server.api_key},
            timeout=60,
        )
        name = f"leases-{uuid.uuid4().hex[:8]}"
        self.workspace = rg.Workspace(name, client=self.client).create()
        self.people = [self._annotator() for _ in range(people)]

    def _annotator(self) -> Person:
        name, password = f"ann-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
        user = {"first_name": name, "username": name, "password": password}
        made = self.owner.post("/users", json=user).raise_for_status().json()
        self.owner.post(
            f"/workspaces/{self.workspace.id}/users", json={"user_id": made["id"]}
        ).raise_for_status()
        return Person(name, password, made["api_key"])

    def dataset(self, records: int, overlap: int = 1) -> str:
        settings = rg.Settings(
            fields=[rg.TextField("text")],
            questions=[rg.LabelQuestion("label", labels=["yes", "no"])],
            metadata=[rg.IntegerMetadataProperty("number")],
            distribution=rg.TaskDistribution(min_submitted=overlap),
        )
        dataset = rg.Dataset(
            f"set-{uuid.uuid4().hex[:8]}",
            workspace=self.workspace,
            settings=settings,
            client=self.client,
        ).create()
        dataset.records.log(
            [
                rg.Record(id=str(n), fields={"text": f"text {n}"}, metadata={"number": n})
                for n in range(records)
            ]
        )
        return str(dataset.id)

    def page(self, dataset: str, person: int, **options: object) -> PageClient:
        return PageClient(self.server.url, dataset, self.people[person].api_key, **options)  # type: ignore[arg-type]

    def submissions(self, dataset: str) -> Counter[str]:
        """Submitted answers by record, from Argilla's database."""
        counts: Counter[str] = Counter()
        for offset in range(0, 10_000, 1000):
            page = self.owner.get(
                f"/datasets/{dataset}/records",
                params={"include": "responses", "offset": offset, "limit": 1000},
            ).raise_for_status()
            for record in page.json()["items"]:
                given = [one for one in record["responses"] if one["status"] == "submitted"]
                counts[record["id"]] = len(given)
            if len(page.json()["items"]) < 1000:
                return counts
        raise AssertionError("more records than were made")
