"""A process of annotators who answer their items until the server has acknowledged every answer.

    python stubborn_annotators.py WORK.json ROUND…

Each is a thread with an own key and own items, and an own journal beside WORK.json: what the server
answered, a line a version, written before the next answer is sent. Killed and started again, they
go on with what their journal does not hold: the same answer to the same item, so that nothing is
lost when only the acknowledgement was. Round 0 answers each item, later rounds edit it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

LARGEST_BULK = 25
"""Argilla takes 100; of a larger bulk a kill cuts off more, which is all sent again."""
SINGLY = 0.1
"""How many of the items are answered one by one."""

_CHOICES = ("a_much_better", "a_better", "no_difference", "b_slightly_better", "b_better")
_PAUSE = 0.2
_RACED = "UNIQUE constraint failed: responses.record_id"
"""Argilla looks whether a response is there and then makes it: in between it may come from a
request that a killed process has sent."""


@dataclass(frozen=True)
class Annotator:
    """Who, with which key, and their items: item id → Argilla's record id."""

    name: str
    key: str
    items: dict[str, str]


def write_work(path: Path, url: str, annotators: Sequence[Annotator]) -> None:
    """Write down what the annotators of one process have to do."""
    path.write_text(json.dumps({"url": url, "annotators": [vars(each) for each in annotators]}))


def journal_of(folder: Path, name: str) -> Path:
    """Where an annotator writes down what was acknowledged."""
    return folder / f"{name}.journal"


def acknowledged(journal: Path) -> list[dict[str, Any]]:
    """What the server has answered this annotator: item, round, and the version itself."""
    if not journal.exists():
        return []
    whole = journal.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def answer_to(item: str, round_: int, name: str) -> dict[str, Any]:
    """What an annotator says of an item: always the same, and different in every round.

    First everybody submits; of the edits every sixth discards, every sixth makes it a draft again.
    """
    chance = random.Random(f"{item} {round_} {name}")
    statuses = ("submitted",) if round_ == 0 else (*["submitted"] * 4, "draft", "discarded")
    return {
        "status": chance.choice(statuses),
        "values": {
            "preference": {"value": chance.choice(_CHOICES)},
            "correction": {"value": f"{item} as {name} sees it, “version” {round_}\n"},
        },
    }


class _Desk:
    """One annotator at work."""

    def __init__(self, url: str, annotator: Annotator, journal: Path) -> None:
        self.annotator = annotator
        self.http = httpx.Client(
            base_url=f"{url}/api/v1/",
            headers={"X-Argilla-Api-Key": annotator.key},
            timeout=60,
        )
        known = acknowledged(journal)
        self.done = {(line["item"], line["round"]) for line in known}
        self.ids = {line["item"]: line["answer"]["id"] for line in known}
        self.journal = journal.open("ab", buffering=0)
        self.journal.truncate(journal.read_bytes().rfind(b"\n") + 1)

    def work(self, round_: int) -> None:
        chance = random.Random(f"{self.annotator.name} {round_}")
        rest = iter([i for i in self.annotator.items if (i, round_) not in self.done])
        largest = min(LARGEST_BULK, 2 + len(self.annotator.items) // 3)
        while items := list(itertools.islice(rest, _how_many(chance, largest))):
            if len(items) == 1:
                answers = [self.submit(items[0], round_)]
            else:
                answers = self.submit_bulk(items, round_)
            self.note(zip(items, answers, strict=True), round_)

    def submit(self, item: str, round_: int) -> Any:
        """As Argilla's page does: create the response, or change the one there is."""
        said = answer_to(item, round_, self.annotator.name)
        record = self.annotator.items[item]
        if item not in self.ids:
            made = self.request("POST", f"records/{record}/responses", said)
            if made.status_code == 201:
                return made.json()
            assert made.status_code == 409, made.text  # made, but the acknowledgement was lost
            (there,) = self.request("GET", f"records/{record}").json()["responses"]
            self.ids[item] = there["id"]
        changed = self.request("PUT", f"responses/{self.ids[item]}", said)
        assert changed.status_code == 200, changed.text
        return changed.json()

    def submit_bulk(self, items: list[str], round_: int) -> list[Any]:
        """All items at once; whatever is refused again until it is not."""
        answers: dict[str, Any] = {}
        while missing := [item for item in items if item not in answers]:
            said = [
                {
                    "record_id": self.annotator.items[item],
                    **answer_to(item, round_, self.annotator.name),
                }
                for item in missing
            ]
            got = self.request("POST", "me/responses/bulk", {"items": said})
            assert got.status_code == 200, got.text
            for item, result in zip(missing, got.json()["items"], strict=True):
                assert result["error"] is None, result
                answers[item] = result["item"]
        return [answers[item] for item in items]

    def note(self, answers: Iterator[tuple[str, Any]], round_: int) -> None:
        lines = []
        for item, answer in answers:
            self.ids[item] = answer["id"]
            lines.append(json.dumps({"item": item, "round": round_, "answer": answer}) + "\n")
        os.write(self.journal.fileno(), "".join(lines).encode())

    def request(self, method: str, path: str, content: Any = None) -> httpx.Response:
        """Ask until there is an answer."""
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self.http.request(method, path, json=content)
                if not (answer.status_code == 500 and _RACED in answer.text):
                    return answer
            time.sleep(_PAUSE)


def _how_many(chance: random.Random, largest: int) -> int:
    """Items of the next request, so that about `SINGLY` of all items go one by one."""
    bulks = (1 - SINGLY) / ((2 + largest) / 2)
    return chance.randint(2, largest) if chance.random() < bulks / (bulks + SINGLY) else 1


def main(work: Path, rounds: Sequence[int]) -> None:
    content = json.loads(work.read_text())
    failures: list[BaseException] = []

    def annotate(annotator: Annotator) -> None:
        try:
            desk = _Desk(content["url"], annotator, journal_of(work.parent, annotator.name))
            for round_ in rounds:
                desk.work(round_)
        except BaseException as error:
            failures.append(error)
            raise  # the thread's traceback goes to stderr

    people = [Annotator(**each) for each in content["annotators"]]
    threads = [threading.Thread(target=annotate, args=(each,)) for each in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(bool(failures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(number) for number in sys.argv[2:]])
