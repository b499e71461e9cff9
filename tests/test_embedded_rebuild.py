"""Search indexes that are lost, damaged, behind or made anew while people work; deletions."""

import random
import sqlite3
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from align.cli import main
from annotate.embedded.home import credentials
from annotate.embedded.index import DatasetIndex
from annotate.embedded.index_file import delete_files, is_damage
from annotate.embedded.process import start, stop
from annotate.project_init import init_project
from annotate.reindex import reindex
from annotate.server import Server

RECORDS = 30
PAGE = 4096


class Api:
    """REST as one user."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx.Client(
            base_url=f"{url}/api/v1", headers={"X-Argilla-Api-Key": key}, timeout=60
        )

    def __call__(self, method: str, path: str, **what: Any) -> Any:
        answer = self.http.request(method, path, **what).raise_for_status()
        return answer.json() if answer.content else None

    def total(self, dataset: str, *filters: dict[str, Any], text: str | None = None) -> int:
        """How many records of a data set a search finds."""
        body: dict[str, Any] = {"filters": {"and": list(filters)}} if filters else {}
        if text:
            body["query"] = {"text": {"q": text}}
        path = f"/datasets/{dataset}/records/search"
        found = self("POST", path, json=body, params={"limit": 1})["total"]
        return int(found)


class Restartable:
    """A server that a test stops and starts, and its owner's REST."""

    def __init__(self, home: Path, database_url: str | None) -> None:
        self.home = home
        self.database_url = database_url
        self.start()

    def start(self) -> list[str]:
        """What was said of its indexes."""
        said: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            if self.database_url:
                patch.setenv("HANDLOOM_DATABASE_URL", self.database_url)
            self.url = start(self.home, 0, say=said.append).url
        self.key = credentials(self.home).api_key
        self.owner = Api(self.url, self.key)
        return said

    def stop(self) -> None:
        stop(self.home)

    def index_file(self, dataset: str) -> Path:
        return self.home / "index" / f"{dataset}.db"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Restartable]:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create_database()
    made = Restartable(tmp_path_factory.mktemp("rebuilt") / ".handloom" / "argilla", url)
    yield made
    made.stop()


def terms(values: list[str], **scope: str) -> dict[str, Any]:
    return {"type": "terms", "scope": scope, "values": values}


def make_dataset(owner: Api, name: str) -> str:
    """A published data set of RECORDS records with metadata, suggestions and vectors; its id."""
    workspace = owner("POST", "/workspaces", json={"name": f"w-{uuid.uuid4().hex[:8]}"})["id"]
    body = {
        "name": name,
        "workspace_id": workspace,
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
    }
    dataset: str = owner("POST", "/datasets", json=body)["id"]
    at = f"/datasets/{dataset}"
    text = {"name": "text", "title": "t", "required": True, "settings": {"type": "text"}}
    owner("POST", f"{at}/fields", json=text)
    options = [{"value": value, "text": value} for value in ("yes", "no")]
    label = {"type": "label_selection", "options": options}
    question = {"name": "label", "title": "l", "required": True, "settings": label}
    label_id = owner("POST", f"{at}/questions", json=question)["id"]
    topic = {"name": "topic", "title": "t", "settings": {"type": "terms"}}
    owner("POST", f"{at}/metadata-properties", json=topic)
    owner("POST", f"{at}/vectors-settings", json={"name": "v", "title": "v", "dimensions": 2})
    owner("PUT", f"{at}/publish")
    items = [
        {
            "external_id": f"r{n}",
            "fields": {"text": f"card number {n}"},
            "metadata": {"topic": "odd" if n % 2 else "even", "late": f"l{n % 3}"},
            "suggestions": [{"question_id": label_id, "value": "yes" if n % 2 else "no"}],
            "vectors": {"v": [float(n), 1.0]},
        }
        for n in range(RECORDS)
    ]
    owner("POST", f"{at}/records/bulk", json={"items": items})
    return dataset


def make_annotator(server: Restartable, dataset: str) -> tuple[str, Api]:
    """A user's id, and REST in their name."""
    name = f"ann-{uuid.uuid4().hex[:8]}"
    new = {"first_name": "Ann", "username": name, "password": "a long password"}
    user = server.owner("POST", "/users", json=new)
    workspace = server.owner("GET", f"/datasets/{dataset}")["workspace_id"]
    server.owner("POST", f"/workspaces/{workspace}/users", json={"user_id": user["id"]})
    return user["id"], Api(server.url, user["api_key"])


def answer(who: Api, record: str, value: str = "yes") -> None:
    body = {"status": "submitted", "values": {"label": {"value": value}}}
    who("POST", f"/records/{record}/responses", json=body)


def record_ids(owner: Api, dataset: str) -> list[str]:
    items = owner("GET", f"/datasets/{dataset}/records", params={"limit": 1000})["items"]
    return [item["id"] for item in items]


ANSWERED = terms(["submitted"], entity="response", property="status")


def test_a_deleted_user_no_longer_counts(server: Restartable) -> None:
    owner = server.owner
    dataset = make_dataset(owner, "of somebody who leaves")
    user, ann = make_annotator(server, dataset)
    _, bob = make_annotator(server, dataset)
    first, second, *_ = record_ids(owner, dataset)
    answer(ann, first)
    answer(ann, second)
    answer(bob, second)
    yes = terms(["yes"], entity="response", question="label")
    assert (owner.total(dataset, ANSWERED), owner.total(dataset, yes)) == (2, 2)
    owner("DELETE", f"/users/{user}")
    assert (owner.total(dataset, ANSWERED), owner.total(dataset, yes)) == (1, 1)
    assert bob("GET", f"/me/datasets/{dataset}/metrics")["responses"]["submitted"] == 1


def test_properties_that_come_and_go(server: Restartable) -> None:
    owner = server.owner
    dataset = make_dataset(owner, "of changing properties")
    late = {"name": "late", "title": "t", "settings": {"type": "terms"}}
    made = owner("POST", f"/datasets/{dataset}/metadata-properties", json=late)
    of_late = terms(["l1"], entity="metadata", metadata_property="late")
    assert owner.total(dataset, of_late) == RECORDS / 3  # held since before the property was made
    owner("DELETE", f"/metadata-properties/{made['id']}")
    vectors = owner("GET", f"/datasets/{dataset}/vectors-settings")["items"][0]["id"]
    owner("DELETE", f"/vectors-settings/{vectors}")
    again = owner("POST", f"/datasets/{dataset}/metadata-properties", json=late)
    assert owner.total(dataset, of_late) == RECORDS / 3
    owner("DELETE", f"/metadata-properties/{again['id']}")


def test_reindex_while_people_work(server: Restartable, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = server.owner
    dataset = make_dataset(owner, "reindexed")
    ids = record_ids(owner, dataset)
    with ThreadPoolExecutor(1) as pool, Server(server.url, server.key) as client:
        answering = pool.submit(lambda: [answer(owner, record) for record in ids])
        while not answering.done():
            (one,) = reindex(client, ["reindexed"])
            assert one.records == RECORDS
        answering.result()
    assert owner.total(dataset, ANSWERED) == RECORDS
    assert list((server.home / "index").glob("*.new*")) == []
    monkeypatch.setenv("HANDLOOM_ARGILLA_URL", server.url)
    monkeypatch.setenv("HANDLOOM_ARGILLA_API_KEY", server.key)
    monkeypatch.chdir(server.home.parent.parent)
    init_project(Path())
    done = CliRunner().invoke(main, ["reindex", "reindexed"])
    assert done.exit_code == 0, done.output
    assert f"reindexed: {RECORDS} records" in done.output
    refused = CliRunner().invoke(main, ["reindex", "nowhere"])
    assert refused.exit_code == 1
    assert "no published data set is called nowhere" in refused.output


def test_only_the_owner_may_reindex(server: Restartable) -> None:
    dataset = make_dataset(server.owner, "not for everybody")
    _, ann = make_annotator(server, dataset)
    path = f"{server.url}/api/handloom/datasets/{dataset}/reindex"
    assert ann.http.post(path).status_code == 403
    assert httpx.post(path).status_code == 401
    assert server.owner.http.get(path).status_code == 404
    assert server.owner.http.post(path.replace(dataset, str(uuid.uuid4()))).status_code == 404


DAMAGES = {
    "suggestions": "DELETE FROM value WHERE key IN (SELECT n FROM key WHERE name GLOB '*.at')",
    "vectors": "UPDATE vector SET updated_at = updated_at - 1 WHERE record = 3",
    "responses": "DELETE FROM response",
    "its records": "UPDATE record SET updated_at = updated_at - 1 WHERE n = 3",
    "completed": "UPDATE record SET status = 'pending'",
    "properties": "DELETE FROM key WHERE name = 'metadata.topic'",
    "version": "PRAGMA user_version = 1",
    "missing": "",
    "malformed": "",
}
"""What is said → what was done to the index."""


def damage(path: Path, reason: str) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    if reason == "missing":
        path.unlink()
    elif reason == "malformed":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        with sqlite3.connect(path) as db:
            db.execute(DAMAGES[reason])
        db.close()


def test_an_index_that_is_lost_damaged_or_behind_is_made_anew(server: Restartable) -> None:
    datasets = {reason: make_dataset(server.owner, f"with {reason}") for reason in DAMAGES}
    for dataset in datasets.values():
        answer(server.owner, record_ids(server.owner, dataset)[0])
    server.stop()
    for reason, dataset in datasets.items():
        damage(server.index_file(dataset), reason)
    said = server.start()
    for reason, dataset in datasets.items():
        (line,) = [line for line in said if f"with {reason} rebuilt" in line]
        assert reason in line.rpartition("(")[2]
        assert f": {RECORDS} records in" in line
        odd = terms(["odd"], entity="metadata", metadata_property="topic")
        assert server.owner.total(dataset, odd) == RECORDS / 2
        assert server.owner.total(dataset, text="card -7") == RECORDS - 1
        assert server.owner("GET", f"/datasets/{dataset}/progress")["completed"] == 1
    assert len(said) == len(DAMAGES)  # all other indexes of this file's tests kept up
    server.stop()
    assert server.start() == []


def contents(path: Path) -> dict[str, list[Any]]:
    """What an index holds, by table, without the numbers that depend on the order of arrival."""
    queries = {
        "record": "SELECT hex(id), external_id, status, updated_at FROM record",
        "text": "SELECT f0 FROM text",
        "value": "SELECT name, hex(record.id), value FROM value"
        " JOIN key ON key.n = value.key JOIN record ON record.n = value.record",
        "response": "SELECT hex(response.id), hex(record.id), response.status FROM response"
        " JOIN record ON record.n = response.record",
        "vector": "SELECT hex(record.id), hex(value) FROM vector"
        " JOIN record ON record.n = vector.record",
    }
    with closing(sqlite3.connect(path)) as db:
        return {name: sorted(map(repr, db.execute(sql))) for name, sql in queries.items()}


def overwrite(path: Path, start: int, noise: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(noise.randbytes(PAGE))


def is_seen_to_be_damaged(path: Path) -> bool:
    try:
        with closing(DatasetIndex(path)) as index:
            return bool(index.damage())
    except sqlite3.DatabaseError as error:
        return is_damage(error)


def test_a_page_of_noise_anywhere_in_an_index_is_found_at_the_start(server: Restartable) -> None:
    dataset = make_dataset(server.owner, "of noise")
    path = server.index_file(dataset)
    answer(server.owner, record_ids(server.owner, dataset)[0])
    server.stop()
    whole, expected = path.read_bytes(), contents(path)
    pages = len(whole) // PAGE
    noise = random.Random(20261121)

    def spoil(page: int) -> None:
        delete_files(path)
        path.write_bytes(whole)
        overwrite(path, page * PAGE, noise)

    for page in range(pages):
        spoil(page)
        assert is_seen_to_be_damaged(path) or contents(path) == expected, page
    for page in (1, noise.randrange(2, pages)):
        spoil(page)
        said = server.start()
        assert [line for line in said if "of noise rebuilt" in line], page
        assert server.owner.total(dataset, text="card -7") == RECORDS - 1
        server.stop()
        assert contents(path) == expected, page
    server.start()


def test_damage_while_people_search_is_mended(server: Restartable) -> None:
    dataset = make_dataset(server.owner, "of noise meanwhile")
    path = server.index_file(dataset)
    server.stop()
    with closing(sqlite3.connect(path)) as db:
        pages = [
            row[0]
            for row in db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'text_data'")
        ]
    server.start()
    assert len(record_ids(server.owner, dataset)) == RECORDS  # the server has the file open
    overwrite(path, (pages[0] - 1) * PAGE, random.Random(7))
    for _ in range(2):
        assert server.owner.total(dataset, text="card -7") == RECORDS - 1
    answer(server.owner, record_ids(server.owner, dataset)[0])
    assert server.owner.total(dataset, ANSWERED) == 1
