"""Import from and export to the Hub, without one: a folder stands for it, or a server that is odd.

Datasets' `load_dataset` reads a folder of Parquet files as it reads a repository of the Hub.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import argilla as rg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import RunningArgilla, run_argilla
from receiver import eventually

from annotate.embedded.database import VARIABLE
from annotate.embedded.home import holder
from annotate.embedded.process import stop

TOKEN = "hf_a_token_that_must_not_be_written_down"


class StandIn(ThreadingHTTPServer):
    """Answers every request for the Hub with 401, after a while."""

    daemon_threads = True

    def __init__(self) -> None:
        self.pause = 0.0
        self.asked = threading.Event()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                stand_in.asked.set()
                time.sleep(stand_in.pause)
                self.send_response(401)
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    hub = StandIn()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.fixture(params=["postgresql", pytest.param("sqlite", marks=pytest.mark.slow)])
def server(
    request: pytest.FixtureRequest, hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningArgilla]:
    if request.param == "postgresql":
        monkeypatch.setenv(VARIABLE, request.getfixturevalue("postgres_url"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    home = tmp_path / "argilla"
    yield run_argilla(home)
    stop(home)


def make_dataset(client: rg.Argilla) -> rg.Dataset:
    workspace = rg.Workspace("w", client=client).create()
    settings = rg.Settings(
        fields=[rg.TextField("text")], questions=[rg.LabelQuestion("label", labels=["a", "b"])]
    )
    return rg.Dataset("d", workspace=workspace, settings=settings, client=client).create()


def post(client: rg.Argilla, path: str, body: dict[str, Any]) -> str:
    job: str = client.http_client.post(f"/api/v1/{path}", json=body).raise_for_status().json()["id"]
    return job


def status(client: rg.Argilla, job: str) -> str:
    answer = client.http_client.get(f"/api/v1/jobs/{job}").raise_for_status()
    said: str = answer.json()["status"]
    return said


def ended(client: rg.Argilla, job: str) -> str:
    """The status that a job comes to."""
    eventually(lambda: status(client, job) in ("finished", "failed"), 90)
    return status(client, job)


def test_hub_jobs_end_in_a_status_that_is_true(
    server: RunningArgilla, hub: StandIn, tmp_path: Path
) -> None:
    client = rg.Argilla(api_url=server.url, api_key=server.api_key)
    dataset = make_dataset(client)

    folder = tmp_path / "data"
    folder.mkdir()
    texts = [f"row {number}" for number in range(250)]
    pq.write_table(pa.table({"text": texts, "label": ["a"] * 250}), folder / "train.parquet")
    mapping = {
        "fields": [{"source": "text", "target": "text"}],
        "metadata": [],
        "suggestions": [{"source": "label", "target": "label"}],
    }
    source = {"name": str(folder), "subset": "default", "split": "train", "mapping": mapping}
    for _ in range(2):  # a second time changes nothing
        job = post(client, f"datasets/{dataset.id}/import", source)
        assert ended(client, job) == "finished"
        assert dataset.progress()["total"] == 250
    wrong = post(client, f"datasets/{dataset.id}/import", source | {"name": str(tmp_path / "no")})
    assert ended(client, wrong) == "failed"

    target = {"name": "me/mine", "subset": "default", "split": "train", "private": True}
    refused = post(client, f"datasets/{dataset.id}/export", target | {"token": TOKEN})
    assert ended(client, refused) == "failed"
    assert list((server.home / "hub-jobs").iterdir()) == []

    hub.pause = 60
    hub.asked.clear()
    cut_off = post(client, f"datasets/{dataset.id}/export", target | {"token": TOKEN})
    assert hub.asked.wait(60)
    pid = holder(server.home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: holder(server.home) is None)
    again = run_argilla(server.home)
    client = rg.Argilla(api_url=again.url, api_key=again.api_key)
    assert status(client, cut_off) == "failed"
    assert f"a stop of the server cut off: {cut_off}" in (server.home / "server.log").read_text()
    for file in server.home.rglob("*"):
        if file.is_file():
            assert TOKEN.encode() not in file.read_bytes(), file
