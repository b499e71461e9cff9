"""The backend `openai` and a real server: the same completions, whatever goes wrong meanwhile."""

import json
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from chat_server import ChatServer, Fault
from click.testing import CliRunner
from loop_runs import new_project
from tiny_model import write_tiny_model

from align.backends.openai_http import KEY, checked_address
from align.backends.openai_server import OpenAIServer
from align.cli import main
from align.generate import generate
from align.model import Loaded, load_model
from align.model_ref import resolve_model
from align.prompts import PromptSource, read_prompts
from align.sampling import Sampling
from annotate.errors import HandloomError, InputError, ServerError
from annotate.runs import Project, Run, verify

SHORT = Sampling(max_new_tokens=6)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = write_tiny_model(tmp_path_factory.mktemp("served") / "tiny")
    project = new_project(tmp_path_factory.mktemp("server"))
    return load_model(resolve_model(project, str(folder)))


@pytest.fixture
def chat(tiny: Loaded) -> Iterator[ChatServer]:
    with ChatServer(tiny) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def desk(project: Project, count: int = 5) -> PromptSource:
    return read_prompts(project, "support-desk", split="train", count=count)


def asked(project: Project, chat: ChatServer, round: int = 1, **options: float) -> Run:
    backend = OpenAIServer(chat.url, **{"first_pause": 0.01, "timeout": 5.0, **options})  # type: ignore[arg-type]
    source = desk(project)
    return generate(project, ["tiny"], source, sampling=SHORT, backend=backend, round=round)


def said(run: Run) -> list[str]:
    outputs = run.read("outputs")
    return list(outputs["output_id"].to_pylist())


def test_a_server_completes_what_it_is_asked(project: Project, chat: ChatServer) -> None:
    run = asked(project, chat)
    outputs = run.read("outputs").to_pylist()
    assert len(outputs) == 10
    assert run.manifest["settings"]["backend"] == run.metrics["backend"] == "openai"
    assert run.manifest["settings"]["url"] == chat.url
    assert json.loads(outputs[0]["sampling"]) == {
        **SHORT.model_dump(),
        "sample": 0,
        "backend": "openai",
    }
    assert all(row["logprob"] < 0 and row["tokens"] <= 6 for row in outputs)
    seeds = [request["seed"] for request in chat.requests]
    assert len(set(seeds)) == 10
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert 1 < chat.most_under_way <= 8
    # The same command finds the run and asks nothing.
    assert asked(project, chat).id == run.id
    assert len(chat.requests) == 10


def test_faults_that_pass_change_nothing(project: Project, chat: ChatServer) -> None:
    calm = said(asked(project, chat))
    chat.faults = deque(
        [
            Fault(500, "oh"),
            Fault(),  # the connection is dropped
            Fault(429, "slow down", {"retry-after": "0.05"}),
            Fault(503, "busy", {"retry-after": format_datetime(datetime.now(UTC))}),
            Fault(200, hang_seconds=0.6),  # beyond the time-out
            Fault(429, "slow down", {"retry-after": "soon"}),
        ]
    )
    # Other orders and other company: the same completions.
    rough = asked(project, chat, round=2, timeout=0.3, concurrency=3)
    assert said(rough) == calm
    assert len(chat.requests) == 10 + 16
    assert verify(project) == []


def test_a_server_that_stays_away_stops_the_run_and_the_rest_follows(
    project: Project, chat: ChatServer
) -> None:
    chat.refuse = {desk(project).prompts["messages"][4].as_py()[-1]["content"][:40]: Fault(500)}
    with pytest.raises(ServerError, match=r"no completion after 8 tries: it answered 500"):
        asked(project, chat, first_pause=0.001, concurrency=1)
    (unfinished,) = project.unfinished()
    kept = list((project.runs_dir / f".{unfinished}.partial" / "shards").iterdir())
    assert len(kept) == 1
    chat.refuse, before = {}, len(chat.requests)
    run = asked(project, chat)
    assert run.id == unfinished
    assert len(chat.requests) - before == 2  # of the fifth prompt
    with ChatServer(chat.loaded) as other:
        assert said(asked(project, other, round=3)) == said(run)


def test_a_prompt_that_the_server_cannot_take_is_set_aside(
    project: Project, chat: ChatServer
) -> None:
    first, second = (m.as_py()[-1]["content"][:40] for m in desk(project).prompts["messages"][:2])
    chat.refuse = {
        first: Fault(400, {"message": "too much", "code": "context_length_exceeded"}),
        second: Fault(400, {"message": "the maximum context length is 256 tokens"}),
    }
    run = asked(project, chat)
    assert run.read("outputs").num_rows == 6
    reasons = run.read("quarantine")["reason"].to_pylist()
    assert sorted(reasons) == [
        "the server refuses the prompt: the maximum context length is 256 tokens",
        "the server refuses the prompt: too much",
    ]


def test_a_server_is_spoken_to_in_its_dialect(project: Project, chat: ChatServer) -> None:
    chat.faults = deque([Fault(400, "logprobs is not supported here")])
    run = asked(project, chat, concurrency=1)
    assert run.read("outputs")["logprob"].null_count == 10
    assert "logprobs" in chat.requests[0]
    assert not any("logprobs" in request for request in chat.requests[1:])


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("logprobs", "logprobs is not supported here"),
        ("max_tokens", "Use 'max_completion_tokens' instead"),
    ],
)
def test_requests_under_way_together_all_learn_the_dialect(
    project: Project, chat: ChatServer, field: str, said: str
) -> None:
    chat.refuse = {f'"{field}"': Fault(400, said, hang_seconds=0.1)}
    run = asked(project, chat, concurrency=8)
    assert run.read("outputs").num_rows == 10
    refused = [request for request in chat.requests if field in request]
    assert len(refused) == 8  # the first ones, none of which knew yet


def test_half_a_character_in_an_answer_is_replaced(project: Project, chat: ChatServer) -> None:
    choice = b'{"message": {"content": "no \\ud83d smile"}, "finish_reason": "stop"}'
    chat.faults = deque([Fault(200, content=b'{"choices": [' + choice + b"]}")])
    run = asked(project, chat)
    assert "no ? smile" in run.read("outputs")["completion"].to_pylist()


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (Fault(400, "seed\x1b[31m must be odd"), r"refuses the request \(400: seed \[31m must be"),
        (Fault(404, "no such model"), r"no model 'tiny'.*no such model.*It has tiny"),
        (Fault(429, {"message": "pay", "code": "insufficient_quota"}), r"\(429: pay\)"),
        (Fault(429, "wait", {"retry-after": "86400"}), "asks to wait 86400 seconds"),
        (Fault(200, content=b"<html>"), r"does not speak OpenAI's protocol.*/v1"),
        (Fault(200, content=b'{"choices": []}'), "not of OpenAI's form"),
        (Fault(302, "", {"location": "http://elsewhere"}), r"refuses the request \(302"),
    ],
)
def test_a_refusal_is_one_clear_line(
    project: Project, chat: ChatServer, fault: Fault, complaint: str
) -> None:
    chat.faults = deque([fault] * 8)
    with pytest.raises(ServerError, match=complaint) as raised:
        asked(project, chat, concurrency=1)
    assert "\n" not in str(raised.value)
    assert "\x1b" not in str(raised.value)
    assert len(chat.requests) == 1  # none of these is tried again
    assert chat.url in str(raised.value)


def test_requests_are_spaced(project: Project, chat: ChatServer) -> None:
    asked(project, chat, requests_per_minute=3000)
    # 3,000 a minute: one every 20 ms, so the tenth leaves 180 ms after the first or later.
    assert chat.times[-1] - chat.times[0] > 0.15


def test_the_key_is_in_no_file_and_no_message(
    project: Project, tiny: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-secret-1234"
    with ChatServer(tiny, key=key) as chat:
        with pytest.raises(ServerError, match=rf"asks for a key \(401\).*{KEY}"):
            asked(project, chat)
        monkeypatch.setenv(KEY, "wrong")
        with pytest.raises(ServerError, match="refuses the key") as raised:
            asked(project, chat)
        assert "wrong" not in str(raised.value)
        monkeypatch.setenv(KEY, key)
        asked(project, chat)
    files = [path for path in project.root.rglob("*") if path.is_file()]
    assert files
    assert not any(key.encode() in path.read_bytes() for path in files)
    monkeypatch.setenv(KEY, "two\nlines")
    with pytest.raises(InputError, match="characters that no key has") as bad:
        asked(project, chat, round=2)
    assert "two" not in str(bad.value)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "needs the server's address"),
        ("localhost:8000", "must begin with http"),
        ("http://example.org/v1", "in the clear"),
        ("http://127.0.0.1.example.org/v1", "in the clear"),
        ("https://me:secret@example.org/v1", "must hold no key"),
        ("https://example.org/v1?key=secret", "must hold no key"),
        ("http://[::1", "malformed"),
        ("http://127.0.0.1:99999/v1", "malformed"),
    ],
)
def test_an_address_that_would_leak_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as raised:
        checked_address(url)
    assert "secret" not in str(raised.value)


def test_addresses_that_are_fine() -> None:
    assert checked_address("https://example.org/v1/") == "https://example.org/v1"
    for host in ("localhost", "127.0.0.2", "[::1]"):
        assert checked_address(f"http://{host}:8000/v1") == f"http://{host}:8000/v1"


def test_a_long_wait_counts_from_the_date_given(project: Project, chat: ChatServer) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(days=1))
    chat.faults = deque([Fault(503, "later", {"retry-after": later})])
    with pytest.raises(ServerError, match=r"asks to wait 86\d{3} seconds"):
        asked(project, chat, concurrency=1)


def test_the_command_asks_a_server_where_one_is_named(
    project: Project, chat: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    words = ["generate", "tiny", "--url", chat.url, "--count", "3", "--max-new-tokens", "4"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "6 completions of 3 prompts" in done.output
    for words, complaint in (
        (["--url", chat.url], "name the server's model"),
        (["--backend", "openai", "tiny"], "needs the server's address"),
        (["--backend", "opneai", "tiny"], "Did you mean openai?"),
        (["--backend", "transformers", "--url", chat.url, "tiny"], "only the backend openai"),
    ):
        failed = CliRunner().invoke(main, ["generate", *words])
        assert failed.exit_code == 1
        assert complaint in failed.output
        assert not isinstance(failed.exception, HandloomError)
