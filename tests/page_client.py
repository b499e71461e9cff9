"""What Argilla's web page does with its queue, over REST: fast enough for many people at once.

As its bundled code does (argilla_server 2.8.0, `static/_nuxt`): a store of numbered records, a page
fetched in the background when half of one is left, with what is in the store and not answered as
the offset. `tests/test_browser_argilla.py` does the same with the page itself.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

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
        body = {"status": status, "values": {"label": {"value": "yes"}}}
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
        assert not set(records) & set(self.store), "the page was given a record twice"
        self.store.extend(records)
