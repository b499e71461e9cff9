"""The real Argilla on our search engine, used through its SDK and its REST interface."""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import argilla as rg
import httpx
import pytest
from conftest import RunningArgilla, run_argilla

from annotate.embedded.home import holder
from annotate.embedded.process import running, start, stop
from annotate.errors import ServerError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SUBMITTED = {
    "rank": {"value": [{"value": "b", "rank": 1}, {"value": "a", "rank": 1}]},
    "rating": {"value": 4},
    "label": {"value": "yes"},
    "flags": {"value": ["unsafe", "untrue"]},
    "reason": {"value": "better tone"},
    "spans": {"value": [{"start": 0, "end": 4, "label": "name"}]},
}


class Annotator:
    """A user of the test's own, over REST."""

    def __init__(self, server: RunningArgilla, workspace: rg.Workspace) -> None:
        owner = httpx.Client(
            base_url=f"{server.url}/api/v1", headers={"X-Argilla-Api-Key": server.api_key}
        )
        self.name = f"ann-{uuid.uuid4().hex[:8]}"
        user = {"first_name": "Ann", "username": self.name, "password": "a long password"}
        self.user = owner.post("/users", json=user).raise_for_status().json()
        owner.post(
            f"/workspaces/{workspace.id}/users", json={"user_id": self.user["id"]}
        ).raise_for_status()
        self.http = httpx.Client(
            base_url=f"{server.url}/api/v1",
            headers={"X-Argilla-Api-Key": self.user["api_key"]},
            timeout=30,
        )

    def respond(self, record: rg.Record, status: str, values: Any = None) -> str:
        body = {"status": status, "values": values}
        answer = self.http.post(f"/records/{record._server_id}/responses", json=body)
        response_id: str = answer.raise_for_status().json()["id"]
        return response_id

    def progress(self, dataset: rg.Dataset) -> dict[str, int]:
        answer = self.http.get(f"/me/datasets/{dataset.id}/metrics").raise_for_status()
        counts: dict[str, int] = answer.json()["responses"]
        return counts

    def queue(self, dataset: rg.Dataset, status: str = "pending", **query: Any) -> list[str]:
        """External ids of the records in this state for the annotator, as the page asks."""
        scope = {"entity": "response", "property": "status"}
        filters = {"and": [{"type": "terms", "scope": scope, "values": [status]}]}
        answer = self.http.post(
            f"/me/datasets/{dataset.id}/records/search", json={"filters": filters} | query
        )
        items = answer.raise_for_status().json()["items"]
        return [item["record"]["external_id"] for item in items]


@pytest.fixture(scope="module")
def client(argilla_server: RunningArgilla) -> rg.Argilla:
    return rg.Argilla(api_url=argilla_server.url, api_key=argilla_server.api_key)


@pytest.fixture(scope="module")
def workspace(client: rg.Argilla) -> rg.Workspace:
    return rg.Workspace(f"embedded-{uuid.uuid4().hex[:8]}", client=client).create()


def make_dataset(
    client: rg.Argilla, workspace: rg.Workspace, records: int = 6, min_submitted: int = 1
) -> rg.Dataset:
    """A published data set with every kind of field and question."""
    settings = rg.Settings(
        guidelines="Say which is better.",
        fields=[
            rg.TextField("prompt"),
            rg.ChatField("chat", required=False),
            rg.ImageField("picture", required=False),
        ],
        questions=[
            rg.RankingQuestion("rank", values=["a", "b"], required=False),
            rg.RatingQuestion("rating", values=[1, 2, 3, 4, 5]),
            rg.LabelQuestion("label", labels=["yes", "no"], required=False),
            rg.MultiLabelQuestion("flags", labels=["unsafe", "untrue", "other"], required=False),
            rg.TextQuestion("reason", required=False),
            rg.SpanQuestion("spans", field="prompt", labels=["name"], required=False),
        ],
        metadata=[
            rg.TermsMetadataProperty("topic"),
            rg.IntegerMetadataProperty("length"),
            rg.FloatMetadataProperty("score"),
        ],
        vectors=[rg.VectorField("meaning", dimensions=2)],
        distribution=rg.TaskDistribution(min_submitted=min_submitted),
    )
    name = f"set-{uuid.uuid4().hex[:8]}"
    dataset = rg.Dataset(name, workspace=workspace, settings=settings, client=client).create()
    dataset.records.log([make_record(number) for number in range(records)])
    return dataset


def make_record(number: int) -> rg.Record:
    return rg.Record(
        id=f"r{number}",
        fields={
            "prompt": f"Where is my card number {number}?",
            "chat": [{"role": "user", "content": "odd" if number % 2 else "even"}],
        },
        metadata={
            "topic": "card" if number % 2 else "cash",
            "length": number,
            "score": number / 4,
        },
        vectors={"meaning": [float(number), 1.0]},
        suggestions=[
            rg.Suggestion("label", "yes" if number < 2 else "no", score=0.5, agent="m1"),
            rg.Suggestion("rank", ["b", "a"]),
        ],
    )


@pytest.fixture(scope="module")
def dataset(client: rg.Argilla, workspace: rg.Workspace) -> rg.Dataset:
    return make_dataset(client, workspace)


def ids(dataset: rg.Dataset, **query: Any) -> list[str]:
    return [record.id for record in dataset.records(rg.Query(**query))]


def test_filters_of_the_sdk(dataset: rg.Dataset) -> None:
    assert sorted(ids(dataset)) == [f"r{n}" for n in range(6)]
    both = rg.Filter([("metadata.topic", "==", "card"), ("metadata.length", ">=", 3)])
    assert sorted(ids(dataset, filter=both)) == ["r3", "r5"]
    assert sorted(ids(dataset, filter=rg.Filter(("label.suggestion", "==", "yes")))) == ["r0", "r1"]
    assert sorted(ids(dataset, filter=rg.Filter(("id", "in", ["r2", "r4"])))) == ["r2", "r4"]
    assert sorted(ids(dataset, filter=rg.Filter(("metadata.score", "<=", 0.25)))) == ["r0", "r1"]


def test_sorts_of_the_page(dataset: rg.Dataset, client: rg.Argilla) -> None:
    def ordered(order: str, **scope: str) -> list[str]:
        body = {"sort": [{"scope": scope, "order": order}]}
        url = f"/api/v1/datasets/{dataset.id}/records/search"
        items = client.http_client.post(url, json=body).raise_for_status().json()["items"]
        return [item["record"]["external_id"] for item in items]

    names = [f"r{n}" for n in range(6)]
    length = {"entity": "metadata", "metadata_property": "length"}
    assert ordered("desc", **length) == names[::-1]
    assert ordered("asc", **length) == names
    agent = {"entity": "suggestion", "question": "label", "property": "value"}
    assert sorted(ordered("desc", **agent)[:2]) == ["r0", "r1"]  # "yes" after "no"
    assert ordered("desc", entity="record", property="external_id") == names[::-1]
    assert sorted(ordered("asc", entity="response", question="rating")) == names


def test_text_search_over_all_fields_and_one(dataset: rg.Dataset, client: rg.Argilla) -> None:
    assert sorted(ids(dataset, query="card odd")) == ["r1", "r3", "r5"]
    assert ids(dataset, query='"number 4"') == ["r4"]
    assert sorted(ids(dataset, query="odd | 4")) == ["r1", "r3", "r4", "r5"]
    assert sorted(ids(dataset, query="numb* -odd")) == ["r0", "r2", "r4"]
    search = {"query": {"text": {"q": "odd", "field": "prompt"}}}
    answer = client.http_client.post(
        f"/api/v1/datasets/{dataset.id}/records/search", json=search
    ).raise_for_status()
    assert answer.json()["total"] == 0


def test_similarity(dataset: rg.Dataset) -> None:
    found = list(dataset.records(rg.Query(similar=rg.Similar("meaning", [5.0, 1.0])), limit=2))
    assert [(record.id, round(score, 2)) for record, score in found] == [("r5", 1.0), ("r4", 1.0)]


def test_metadata_metrics_as_the_page_shows_them(dataset: rg.Dataset, client: rg.Argilla) -> None:
    metrics = {}
    for metadata in dataset.settings.metadata:
        url = f"/api/v1/metadata-properties/{metadata.id}/metrics"
        metrics[metadata.name] = client.http_client.get(url).raise_for_status().json()
    assert metrics["topic"]["values"] == [
        {"term": "card", "count": 3},
        {"term": "cash", "count": 3},
    ]
    assert (metrics["length"]["min"], metrics["length"]["max"]) == (0, 5)
    assert (metrics["score"]["min"], metrics["score"]["max"]) == (0.0, 1.25)


def test_responses_of_several_people(
    client: rg.Argilla, workspace: rg.Workspace, argilla_server: RunningArgilla
) -> None:
    dataset = make_dataset(client, workspace, records=4, min_submitted=2)
    ann, bob = (Annotator(argilla_server, workspace) for _ in range(2))
    records = {record.id: record for record in dataset.records}
    ann.respond(records["r0"], "submitted", SUBMITTED)
    ann.respond(records["r1"], "draft", {"rating": {"value": 1}})
    ann.respond(records["r2"], "discarded")
    bob_first = bob.respond(records["r0"], "submitted", SUBMITTED | {"rating": {"value": 2}})
    assert ann.progress(dataset) == {
        "total": 4, "submitted": 1, "discarded": 1, "draft": 1, "pending": 1,
    }  # fmt: skip
    assert bob.progress(dataset)["pending"] == 3
    progress = dataset.progress()
    assert (progress["completed"], progress["pending"], progress["total"]) == (1, 3, 4)

    assert ann.queue(dataset) == ["r3"]
    assert ann.queue(dataset, "draft") == ["r1"]
    assert ann.queue(dataset, "discarded") == ["r2"]
    assert ann.queue(dataset, "submitted") == ["r0"]
    assert sorted(bob.queue(dataset)) == ["r1", "r2", "r3"]
    assert bob.queue(dataset) == bob.queue(dataset)  # each person's own order, always the same
    assert bob.queue(dataset, query={"text": {"q": "odd"}}) == [
        external_id for external_id in bob.queue(dataset) if external_id in {"r1", "r3"}
    ]
    completed = rg.Filter(("status", "==", "completed"))
    assert ids(dataset, filter=completed) == ["r0"]
    assert ids(dataset, filter=rg.Filter(("response.status", "==", "draft"))) == ["r1"]

    edited = {"status": "draft", "values": {"rating": {"value": 5}}}
    bob.http.put(f"/responses/{bob_first}", json=edited).raise_for_status()
    assert dataset.progress()["completed"] == 0
    assert bob.queue(dataset, "draft") == ["r0"]
    bob.http.delete(f"/responses/{bob_first}").raise_for_status()
    assert bob.progress(dataset)["pending"] == 4


def test_suggestions_and_records_come_and_go(client: rg.Argilla, workspace: rg.Workspace) -> None:
    dataset = make_dataset(client, workspace, records=3)
    records = {record.id: record for record in dataset.records(with_suggestions=True)}
    api = client.http_client
    question = next(q for q in dataset.settings.questions if q.name == "label")
    url = f"/api/v1/records/{records['r0']._server_id}/suggestions"
    body = {"question_id": str(question.id), "value": "no", "type": "human", "agent": "me"}
    made = api.put(url, json=body).raise_for_status().json()
    assert ids(dataset, filter=rg.Filter(("label.suggestion", "==", "yes"))) == ["r1"]
    assert ids(dataset, filter=rg.Filter(("label.agent", "==", "me"))) == ["r0"]
    api.delete(url, params={"ids": made["id"]}).raise_for_status()
    assert ids(dataset, filter=rg.Filter(("label.suggestion", "==", "no"))) == ["r2"]
    dataset.records.delete([records["r1"]])
    assert sorted(ids(dataset)) == ["r0", "r2"]
    dataset.records.log([{"id": "r0", "prompt": "about parrots now"}])
    assert ids(dataset, query="parrots") == ["r0"]
    added = rg.TermsMetadataProperty("late")
    added.dataset = dataset
    added.create()
    dataset.records.log([rg.Record(id="r0", fields={"prompt": "x"}, metadata={"late": "yes"})])
    assert ids(dataset, filter=rg.Filter(("metadata.late", "==", "yes"))) == ["r0"]
    dataset.delete()
    assert client.datasets(dataset.name, workspace=workspace) is None


def test_many_people_at_once_lose_nothing(
    client: rg.Argilla, workspace: rg.Workspace, argilla_server: RunningArgilla
) -> None:
    dataset = make_dataset(client, workspace, records=10, min_submitted=4)
    people = [Annotator(argilla_server, workspace) for _ in range(4)]
    records = list(dataset.records)

    def answer_all(person: Annotator) -> None:
        for record in records:
            person.respond(record, "submitted", SUBMITTED)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(answer_all, people))
    progress = dataset.progress(with_users_distribution=True)
    assert (progress["completed"], progress["total"]) == (10, 10)
    assert {person.progress(dataset)["submitted"] for person in people} == {10}
    assert len(ids(dataset, filter=rg.Filter(("status", "==", "completed")))) == 10


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def set_overlap(client: rg.Argilla, dataset: rg.Dataset, min_submitted: int) -> None:
    body = {"distribution": {"strategy": "overlap", "min_submitted": min_submitted}}
    client.http_client.patch(f"/api/v1/datasets/{dataset.id}", json=body).raise_for_status()


def test_a_change_of_the_overlap_reaches_every_record(
    client: rg.Argilla, workspace: rg.Workspace, argilla_server: RunningArgilla
) -> None:
    """Argilla leaves this to a background job."""
    dataset = make_dataset(client, workspace, records=3)
    ann = Annotator(argilla_server, workspace)
    for record in list(dataset.records)[:2]:
        ann.respond(record, "submitted", SUBMITTED)
    assert dataset.progress()["completed"] == 2
    set_overlap(client, dataset, 2)
    assert eventually(lambda: dataset.progress()["completed"] == 0)
    set_overlap(client, dataset, 1)
    assert eventually(lambda: dataset.progress()["completed"] == 2)


class Inbox(BaseHTTPRequestHandler):
    """Takes what webhooks send."""

    events: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.events.append(json.loads(body)["type"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_webhooks_are_told(
    client: rg.Argilla, workspace: rg.Workspace, argilla_server: RunningArgilla
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Inbox) as inbox:
        threading.Thread(target=inbox.serve_forever, daemon=True).start()
        wanted = ["record.created", "record.completed", "response.created"]
        body = {"url": f"http://127.0.0.1:{inbox.server_port}/", "events": wanted}
        made = client.http_client.post("/api/v1/webhooks", json=body).raise_for_status().json()
        try:
            dataset = make_dataset(client, workspace, records=2)
            ann = Annotator(argilla_server, workspace)
            ann.respond(next(iter(dataset.records)), "submitted", SUBMITTED)
            expected = ["record.completed", "record.created", "record.created", "response.created"]
            assert eventually(lambda: sorted(Inbox.events) == expected), Inbox.events
        finally:
            client.http_client.delete(f"/api/v1/webhooks/{made['id']}").raise_for_status()
            inbox.shutdown()


def test_only_the_owner_of_the_machine_can_read_the_files(argilla_server: RunningArgilla) -> None:
    home = argilla_server.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name in ("credentials.json", "server.json", "argilla.db"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600, name
    assert argilla_server.api_key not in (home / "server.log").read_text()


def test_there_is_one_account_and_it_has_no_default_password(
    client: rg.Argilla, argilla_server: RunningArgilla
) -> None:
    assert client.me.username == "owner"
    for name, password in [("argilla", "12345678"), ("owner", "12345678"), ("owner", "owner")]:
        login = {"username": name, "password": password}
        answer = httpx.post(f"{argilla_server.url}/api/v1/token", data=login)
        assert answer.status_code == 401
    login = {"username": "owner", "password": argilla_server.password}
    httpx.post(f"{argilla_server.url}/api/v1/token", data=login).raise_for_status()
    default_key = {"X-Argilla-Api-Key": "argilla.apikey"}
    answer = httpx.get(f"{argilla_server.url}/api/v1/me", headers=default_key)
    assert answer.status_code == 401


def test_pages_carry_a_policy_that_knows_their_scripts(argilla_server: RunningArgilla) -> None:
    answer = httpx.get(f"{argilla_server.url}/sign-in").raise_for_status()
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert "unsafe-inline" not in policy["script-src"]
    for script in re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy["script-src"]
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_second_server_on_the_same_folder_is_refused(argilla_server: RunningArgilla) -> None:
    with pytest.raises(ServerError, match="is running on this project already"):
        start(argilla_server.home, 0)
    command = [sys.executable, "-m", "annotate.embedded", "--port", "0", "--home"]
    second = subprocess.run(
        [*command, str(argilla_server.home)], capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert re.fullmatch(r".+: another server is running on this project\. .+\n", second.stderr)
    assert running(argilla_server.home) is not None


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RunningArgilla]:
    server = run_argilla(tmp_path / "a project: 100%? #1" / "argilla")
    yield server
    stop(server.home)


def kill(home: Path) -> None:
    where = running(home)
    assert where is not None
    os.kill(where.pid, signal.SIGKILL)
    assert eventually(lambda: holder(home) is None)


def test_nothing_is_lost_by_a_kill_or_without_its_indexes(own_server: RunningArgilla) -> None:
    home = own_server.home
    client = rg.Argilla(api_url=own_server.url, api_key=own_server.api_key)
    workspace = rg.Workspace("w", client=client).create()
    dataset = make_dataset(client, workspace, records=4)
    ann = Annotator(own_server, workspace)
    record = next(iter(dataset.records))
    ann.respond(record, "submitted", SUBMITTED)
    set_overlap(client, dataset, 2)
    kill(home)  # perhaps before the job that follows from the new overlap

    def check(server: RunningArgilla) -> rg.Dataset:
        assert (server.api_key, server.password) == (own_server.api_key, own_server.password)
        again = rg.Argilla(api_url=server.url, api_key=server.api_key)
        found = again.datasets(dataset.name, workspace="w")
        assert sorted(ids(found, query="card")) == ["r0", "r1", "r2", "r3"]
        assert ids(found, filter=rg.Filter(("rating.response", "==", 4))) == [record.id]
        assert ids(found, filter=rg.Filter(("flags.response", "in", ["untrue"]))) == [record.id]
        assert ids(found, filter=rg.Filter(("label.suggestion", "==", "yes"))) != []
        assert eventually(lambda: found.progress()["completed"] == 0)
        assert found.progress()["pending"] == 4
        assert len(list(found.records(rg.Query(similar=rg.Similar("meaning", [1.0, 1.0]))))) == 4
        return found

    check(run_argilla(home))
    stop(home)
    index = next((home / "index").glob("*.db"))
    shutil.rmtree(home / "index")
    check(run_argilla(home))
    stop(home)
    index.write_bytes(b"damaged" * 1000)
    check(run_argilla(home))
    said = (home / "server.log").read_text()
    assert len(re.findall("search index of .* rebuilt from the database: 4 records", said)) >= 2


def test_a_removed_credentials_file_is_made_anew(own_server: RunningArgilla) -> None:
    stop(own_server.home)
    assert not (own_server.home / "server.json").exists()
    assert not (own_server.home / "page").exists()
    (own_server.home / "credentials.json").unlink()
    again = run_argilla(own_server.home)
    assert again.api_key != own_server.api_key
    for key, status in ((again.api_key, 200), (own_server.api_key, 401)):
        headers = {"X-Argilla-Api-Key": key}
        assert httpx.get(f"{again.url}/api/v1/me", headers=headers).status_code == status
