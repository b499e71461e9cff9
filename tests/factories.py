"""Small makers of projects, tables and runs, for any test that needs some."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pytest

from annotate.accounts import add_users
from annotate.records import output_rows, table_from_rows, text_message
from annotate.runs import Project, Run, RunPlan
from annotate.server import connect
from annotate.server_types import Submission


class Argilla(Protocol):
    """A running server: the fixture `argilla_server`."""

    @property
    def url(self) -> str: ...

    @property
    def api_key(self) -> str: ...


MODELS = ("llama-secret", "mistral-secret", "qwen-secret", "gemma-secret", "olmo-secret")


def make_project(folder: Path) -> Project:
    """A project with the guidelines that come with Handloom."""
    (folder / "runs").mkdir(parents=True)
    source = Path(__file__).parent.parent / "guidelines"
    shutil.copytree(
        source, folder / "guidelines", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    return Project(folder)


def make_prompts(n: int, *, turns: int = 1) -> pa.Table:
    """Prompts p-000, p-001, …; of several turns if asked."""
    roles = ("user", "assistant")
    rows = []
    for number in range(n):
        messages = [
            text_message(roles[turn % 2], f"question {number}, turn {turn}")
            for turn in range(turns)
        ]
        rows.append(
            {
                "prompt_id": f"p-{number:03}",
                "messages": messages,
                "source": "factory",
                "split": "train",
                "metadata": "{}",
            }
        )
    return table_from_rows("prompts", rows)


def make_outputs(prompts: pa.Table, per_prompt: int = 2, texts: Sequence[str] = ()) -> pa.Table:
    """`per_prompt` outputs of each prompt, one a model; `texts` replaces what they say."""
    rows = []
    for prompt_id in prompts["prompt_id"].to_pylist():
        said = [f"answer {n} to {prompt_id}" for n in range(per_prompt)]
        said[: len(texts)] = texts
        sampling = json.dumps({"temperature": 1.0, "seed": 7})
        rows += output_rows(prompt_id, list(zip(MODELS, said, strict=False)), sampling)
    return table_from_rows("outputs", rows)


def make_generated(
    project: Project,
    n_prompts: int = 4,
    per_prompt: int = 2,
    *,
    texts: Sequence[str] = (),
    turns: int = 1,
    round: int = 1,
) -> Run:
    """A finished `generate` run of `n_prompts` prompts."""
    prompts = make_prompts(n_prompts, turns=turns)
    settings = {"n": n_prompts, "per_prompt": per_prompt, "texts": list(texts), "turns": turns}
    with project.draft(RunPlan("generate", round, settings=settings, seed=0)) as draft:
        draft.write("prompts", prompts)
        draft.write("outputs", make_outputs(prompts, per_prompt, texts))
    return draft.run


def connected_project(folder: Path, argilla: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that uses the running server, in a workspace of its own."""
    monkeypatch.setenv("HANDLOOM_ARGILLA_URL", argilla.url)
    monkeypatch.setenv("HANDLOOM_ARGILLA_API_KEY", argilla.api_key)
    monkeypatch.setenv("HANDLOOM_ARGILLA_WORKSPACE", f"test-{uuid.uuid4().hex[:12]}")
    return make_project(folder)


def submit(
    project: Project,
    push_run: Run,
    name: str,
    answers: Mapping[str, Mapping[str, Any]],
    status: str = "submitted",
) -> None:
    """Answer items under a name, through the API; item id → Argilla's values."""
    with connect(project) as server:
        (user,) = add_users(project, server, [name])
        ids: dict[str, str] = {}
        for batch in push_run.metrics["batches"]:
            ids |= server.record_ids(server.batch(batch))
        with server.as_user(user) as desk:
            sent = [Submission(ids[item], values, status) for item, values in answers.items()]
            assert set(desk.submit(sent)) <= {""}


_MOUNTED = """
mount -t tmpfs -o "size=$1" none "$2" 2>/dev/null || exit 77
shift 2
exec "$@"
"""


def run_on_small_disk(
    folder: Path, size: str, code: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run Python code with `folder` a file system of so many bytes ("64k"), which is its argv[1].

    In a mount name space of its own, so that root is not needed; skips where there is none to have.
    """
    mounted = ["unshare", "-rm", "sh", "-c", _MOUNTED, "sh", size, str(folder)]
    command = [*mounted, sys.executable, "-c", code, str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no file system of our own can be mounted here: {done.stderr.strip()}")
    return done
