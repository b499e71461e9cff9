"""Whatever is done to a data set, and in whatever order: searches say what the database says.

Hypothesis draws sequences of what people and programs do to the real server over REST. After each,
text searches, filters, orders, pages, similarity, counts and progress must be those that a plain
reading of the server's database gives (tests/search_model.py).
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from conftest import RunningArgilla, run_argilla
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from machine_site import CORNERS, Published, Site, eventually
from search_comparison import Comparison
from search_model import Json, Row
from search_queries import (
    AGENTS,
    BATTERY,
    Content,
    Query,
    contents,
    queries,
    responses,
    suggestions,
    vectors,
)

from annotate.embedded.process import stop

KILLED_AFTER = 8
"""Steps from one kill to the next: a start takes as long as many of them."""

places = st.integers(0, 30)
somebody = st.integers(0, 1)
has_records = precondition(lambda machine: machine.rows)


class Searches(RuleBasedStateMachine):
    """One data set, two annotators, and everything that can happen to them."""

    site: ClassVar[Site]

    def __init__(self) -> None:
        super().__init__()
        self.dataset = Published(self.site)
        self.compare = Comparison(self.dataset)
        self.probes: list[Query] = []
        self.aim: list[int] = []
        self.min_submitted = 1
        self.steps = 0

    def teardown(self) -> None:
        self.dataset.delete()

    # What is done

    @initialize(
        first=st.lists(contents, max_size=6),
        probes=st.lists(queries, min_size=4, max_size=6),
        aim=vectors,
    )
    def publish(self, first: list[Content], probes: list[Query], aim: list[int]) -> None:
        self.probes, self.aim = probes, aim
        self.create([*CORNERS, *first])

    @rule(items=st.lists(contents, min_size=1, max_size=3))
    def create(self, items: list[Content]) -> None:
        taken: set[str | None] = {row.external_id for row in self.rows}
        records = []
        for item in items:
            record = self.dataset.record(item)
            if item.external_id in taken:
                record.pop("external_id", None)
            taken.add(item.external_id)
            records.append(record)
        self.dataset.put(records, upsert=False)

    @rule(
        items=st.dictionaries(st.none() | places, contents, min_size=1, max_size=3),
        unsaid=st.sampled_from(["", "fields", "metadata"]),
    )
    def upsert(self, items: dict[int | None, Content], unsaid: str) -> None:
        known: dict[str | None, Row] = {
            row.external_id: row for row in self.rows if row.external_id
        }
        records: dict[str, Json] = {}
        for place, item in items.items():
            record = self.dataset.record(item)
            target = known.get(item.external_id)
            if place is not None and self.rows:
                target = self._row(place)
                record["id"] = target.id
                record.pop("external_id", None)
            if target is not None:
                record.pop(unsaid, None)
            records[target.id if target else str(item.external_id)] = record
        self.dataset.put(list(records.values()), upsert=True)

    @has_records
    @rule(
        place=places,
        content=contents,
        parts=st.sets(
            st.sampled_from(["fields", "metadata", "suggestions", "vectors"]), min_size=1
        ),
    )
    def change(self, place: int, content: Content, parts: set[str]) -> None:
        body = self.dataset.record(content)
        body["fields"].pop("chat", None)  # Argilla 2.8.0 breaks when a chat is sent this way
        said = {part: body[part] for part in parts}
        self._owner("PATCH", f"/v1/records/{self._row(place).id}", json=said)

    @has_records
    @rule(place=places, who=somebody, response=responses, many=st.booleans())
    def respond(self, place: int, who: int, response: Json, many: bool) -> None:
        """Answer, or edit or discard the answer that there is."""
        row, person = self._row(place), self.site.people[who]
        mine = [answer.id for answer in row.answers if answer.user == person.id]
        if many:
            body = {"items": [{"record_id": row.id, **response}]}
            said = self.site.call(person, "POST", "/v1/me/responses/bulk", json=body)
            assert [item["error"] for item in said["items"]] == [None]
        elif mine:
            self.site.call(person, "PUT", f"/v1/responses/{mine[0]}", json=response)
        else:
            self.site.call(person, "POST", f"/v1/records/{row.id}/responses", json=response)

    @precondition(lambda machine: any(row.answers for row in machine.rows))
    @rule(place=places)
    def withdraw(self, place: int) -> None:
        answers = [answer for row in self.rows for answer in row.answers]
        answer = answers[place % len(answers)]
        person = next(person for person in self.site.people if person.id == answer.user)
        self.site.call(person, "DELETE", f"/v1/responses/{answer.id}")

    @has_records
    @rule(place=places, suggestion=suggestions())
    def suggest(self, place: int, suggestion: tuple[str, Json]) -> None:
        question, rest = suggestion
        body = {"question_id": self.dataset.questions[question], **rest}
        self._owner("PUT", f"/v1/records/{self._row(place).id}/suggestions", json=body)

    @precondition(lambda machine: any(row.suggestions for row in machine.rows))
    @rule(place=places, of_record=st.booleans())
    def unsuggest(self, place: int, of_record: bool) -> None:
        rows = [row for row in self.rows if row.suggestions]
        row = rows[place % len(rows)]
        ids = [suggestion.id for suggestion in row.suggestions.values()]
        if of_record:
            path = f"/v1/records/{row.id}/suggestions"
            self._owner("DELETE", path, params={"ids": ",".join(ids)})
        else:
            self._owner("DELETE", f"/v1/suggestions/{ids[place % len(ids)]}")

    @has_records
    @rule(some=st.lists(places, min_size=1, max_size=2))
    def delete(self, some: list[int]) -> None:
        ids = sorted({self._row(place).id for place in some})
        if len(ids) == 1:
            self._owner("DELETE", f"/v1/records/{ids[0]}")
        else:
            path = f"/v1/datasets/{self.dataset.id}/records"
            self._owner("DELETE", path, params={"ids": ",".join(ids)})

    @rule(who=somebody)
    def replace_annotator(self, who: int) -> None:
        self.site.replace(who)

    @rule(min_submitted=st.integers(1, 3))
    def change_overlap(self, min_submitted: int) -> None:
        self.min_submitted = min_submitted
        distribution = {"strategy": "overlap", "min_submitted": min_submitted}
        path = f"/v1/datasets/{self.dataset.id}"
        self._owner("PATCH", path, json={"distribution": distribution})
        assert self.compare.settled(self.min_submitted)

    @precondition(lambda machine: "late" not in machine.dataset.metadata)
    @rule()
    def declare_late(self) -> None:
        self.dataset.declare_metadata("late")

    @rule(meanwhile=st.lists(contents, max_size=3))
    def reindex(self, meanwhile: list[Content]) -> None:
        """Have the index made anew, while records come in one by one."""
        path = f"/handloom/datasets/{self.dataset.id}/reindex"
        self._owner("POST", path)
        for content in meanwhile:
            self.dataset.put([self.dataset.record(content)], upsert=True)
        assert eventually(lambda: self._owner("GET", path)["state"] != "running")
        assert self._owner("GET", path)["state"] == "done"

    @rule(query=queries)
    def ask(self, query: Query) -> None:
        self.compare.query(query)

    @precondition(lambda machine: machine.site.may_be_killed and machine.steps >= KILLED_AFTER)
    @has_records
    @rule(
        items=st.lists(st.tuples(contents, places, responses), min_size=20, max_size=20),
        seconds=st.floats(0.0, 0.5),
    )
    def kill_amid(self, items: list[tuple[Content, int, Json]], seconds: float) -> None:
        """Kill the server while records and answers come in, and start it again."""

        def work() -> None:
            try:
                for content, place, response in items:
                    self.dataset.put([self.dataset.record(content)], upsert=True)
                    self.respond(place, 0, response, many=True)
            except httpx.TransportError:
                return  # the server is gone

        working = threading.Thread(target=work)
        working.start()
        time.sleep(seconds)
        self.site.kill()
        working.join()
        self.site.start()
        self.steps = 0
        assert self.compare.settled(self.min_submitted)

    # What must hold after each of these

    @invariant()
    def agrees(self) -> None:
        self.steps += 1
        self.compare.everything(self.probes, self.aim)

    @property
    def rows(self) -> list[Row]:
        """The records as they were before this step."""
        return self.compare.rows

    def _row(self, place: int) -> Row:
        return self.rows[place % len(self.rows)]

    def _owner(self, method: str, path: str, **request: Any) -> Any:
        return self.site.call(self.site.owner, method, path, **request)


def run_machine(site: Site, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        type("Searches", (Searches,), {"site": site}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_searches_follow_each_thing_that_can_happen(argilla_server: RunningArgilla) -> None:
    """A fixed walk: what Hypothesis draws in a short run need not hold every step."""
    machine = type("Searches", (Searches,), {"site": Site(argilla_server)})()
    machine.publish(first=[], probes=BATTERY, aim=[1, 1, 0])
    machine.agrees()
    first, second = CORNERS
    submitted = {"status": "submitted", "values": {"rating": {"value": 2}}}
    discarded = {"status": "discarded", "values": None}
    label = {"value": "yes", "score": 0.5, "agent": AGENTS[1], "type": "model"}
    steps: list[Callable[[], None]] = [
        lambda: machine.upsert(items={0: first, None: second}, unsaid=""),
        lambda: machine.change(
            place=0, content=second, parts={"fields", "metadata", "suggestions"}
        ),
        lambda: machine.respond(place=0, who=1, response=submitted, many=False),
        lambda: machine.respond(place=0, who=1, response=discarded, many=False),
        lambda: machine.respond(place=1, who=1, response=submitted, many=True),
        lambda: machine.suggest(place=0, suggestion=("label", label)),
        lambda: machine.unsuggest(place=0, of_record=False),
        lambda: machine.suggest(place=1, suggestion=("label", label)),
        lambda: machine.unsuggest(place=0, of_record=True),
        lambda: machine.withdraw(place=0),
        lambda: machine.change_overlap(min_submitted=2),
        lambda: machine.declare_late(),
        lambda: machine.replace_annotator(who=1),
        lambda: machine.reindex(meanwhile=[second]),
        lambda: machine.delete(some=[0, 1]),
    ]
    for step in steps:
        step()
        machine.agrees()
    machine.teardown()


def test_searches_follow_the_database(argilla_server: RunningArgilla) -> None:
    run_machine(Site(argilla_server), examples=4, steps=14)


@pytest.mark.slow
def test_searches_follow_the_database_for_long_and_through_kills(tmp_path: Path) -> None:
    server = run_argilla(tmp_path / "argilla")
    try:
        run_machine(Site(server, may_be_killed=True), examples=6, steps=30)
    finally:
        stop(server.home)
