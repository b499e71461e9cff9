"""The dashboard's pages on real runs, and how it is started. What needs a browser is in
test_browser.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import string
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from dashboard_project import (
    HOSTILE,
    make_dashboard_project,
    make_failures,
    make_judged,
    make_training,
)
from factories import make_project
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from align.cli import main
from align.dashboard import app_file, command, free_port
from annotate.errors import ProjectError, ResourceError
from annotate.runs import Project, Run, RunPlan
from streamlit_app.data import PROJECT_VARIABLE, readable_runs
from streamlit_app.plain import escaped
from streamlit_app.tables import SORTS, FailureQuery, failure_counts, failure_page

PAGES = ("rounds", "failures", "agreement", "annotators", "training")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_dashboard_project(tmp_path_factory.mktemp("dash") / "support-desk")


@pytest.fixture
def failures(project: Project) -> Run:
    return project.latest("failures")


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    return make_project(tmp_path / "empty")


def opened(project: Project, page: str, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """The app on a page, after one run of its script."""
    monkeypatch.setenv(PROJECT_VARIABLE, str(project.root))
    app = AppTest.from_file(str(app_file()), default_timeout=60).run()
    if page != "rounds":
        app.switch_page(f"views/{page}.py").run()
    assert not app.exception
    return app


def texts(app: AppTest) -> str:
    """Everything that stands on the page as text, code or caption."""
    return "\n".join(e.value for e in (*app.text, *app.code, *app.caption, *app.markdown))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_a_project(
    project: Project, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened(project, page, monkeypatch)
    assert app.title[0].value


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_project_is_told_what_to_do(
    empty: Project, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any("handloom " in code.value for code in opened(empty, page, monkeypatch).code)


@pytest.mark.parametrize("page", PAGES)
def test_without_a_project_there_is_one_line(
    tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROJECT_VARIABLE, str(tmp_path))
    app = AppTest.from_file(str(app_file()), default_timeout=60).run()
    assert not app.exception
    assert "no project here or above. `handloom init`" in texts(app)


@pytest.mark.parametrize(
    ("page", "step", "file"),
    [
        ("failures", "failures", "failures.parquet"),
        ("agreement", "judge", "agreement.json"),
        ("annotators", "judge", "annotators.json"),
        ("annotators", "pull", "responses.parquet"),
        ("training", "train", "log.jsonl"),
        *((page, "judge", "manifest.json") for page in PAGES),
    ],
)
def test_a_broken_run_is_one_line(
    tmp_path: Path, page: str, step: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_dashboard_project(tmp_path / "p")
    broken = project.latest(step).path / file
    broken.write_bytes(b"\0" + broken.read_bytes()[:100])
    shown = texts(opened(project, page, monkeypatch))
    assert broken.parent.name in shown
    assert "Traceback" not in shown


def test_the_agreement_page_shows_what_the_judge_run_recorded(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened(project, "agreement", monkeypatch)
    recorded = json.loads((project.latest("judge").path / "agreement.json").read_text())
    figures, baseline = (recorded["vote"][part] for part in ("figures", "baseline"))
    shown = [table.value for table in app.dataframe]
    assert list(shown[0]["Figure"]) == list(figures)
    assert list(shown[0]["Value"]) == [f"{of['value']:z.3f}" for of in figures.values()]
    assert list(shown[0]["Definition"]) == [of["definition"] for of in figures.values()]
    assert list(shown[1]["Figure"]) == list(baseline)
    alpha = figures["Krippendorff's alpha (nominal)"]["over_annotators"]
    assert shown[0]["Annotators like these"][0] == f"[{alpha['low']:z.3f}, {alpha['high']:z.3f}]"
    assert "under preference\\@v1" in texts(app)


def test_agreement_of_an_older_judge_run_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "p")
    path = make_judged(project).path / "agreement.json"
    recorded = json.loads(path.read_text())
    del recorded["vote"]["figures"]
    path.write_text(json.dumps(recorded))
    shown = opened(project, "agreement", monkeypatch)
    assert [code.value for code in shown.code] == ["handloom judge --again"]


def test_the_annotators_page_shows_what_the_judge_run_recorded(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened(project, "annotators", monkeypatch)
    recorded = json.loads((project.latest("judge").path / "annotators.json").read_text())
    people = recorded["panels"][0]["people"]
    shown = app.dataframe[0].value
    assert list(shown["Annotator"]) == [
        person["annotator"] + (" (simulated)" if person["simulated"] else "") for person in people
    ]
    ties = people[0]["figures"]["ties"]
    low, high = (f"{100 * ties[end]:z.0f}" for end in ("low", "high"))
    assert shown["Ties"][0] == f"{100 * ties['value']:z.0f} [{low}, {high}]"
    tests = sum(test["p"] is not None for test in recorded["tests"])
    assert f"{len(recorded['flags'])} of {tests:,} tests" in texts(app)


def test_annotators_of_an_older_judge_run_are_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_dashboard_project(tmp_path / "p")
    (project.latest("judge").path / "annotators.json").unlink()
    shown = texts(opened(project, "annotators", monkeypatch))
    assert "handloom judge --again" in shown


def test_failures_are_shown_as_they_were_written(
    project: Project, failures: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened(project, "failures", monkeypatch)
    app.text_input(key="text").input("evil.invalid").run()
    as_text = [element.value for element in app.text]
    assert HOSTILE in as_text
    markup = [e.value for e in (*app.markdown, *app.caption, *app.title, *app.subheader)]
    assert not any("evil.invalid" in value for value in markup)


def test_failures_are_filtered_and_searched(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened(project, "failures", monkeypatch)
    assert "24 match" in texts(app)
    app.multiselect(key="why").select("tied").run()
    assert "6 match" in texts(app)
    app.text_input(key="text").input("(ORDER 4102)").run()
    assert "1 match" in texts(app)
    app.text_input(key="text").input("no such words").run()
    assert "No failure matches" in texts(app)


def test_a_choice_survives_a_filter_and_is_counted(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened(project, "failures", monkeypatch)
    app.checkbox[0].check().run()
    app.checkbox[3].check().run()
    assert "**2 selected**" in texts(app)
    app.text_input(key="text").input("no such words").run()
    assert "**2 selected**" in texts(app)
    app.text_input(key="text").input("").run()
    assert [box.value for box in app.checkbox[:4]] == [True, False, False, True]
    button(app, "Clear the selection").click().run()
    assert not any(box.value for box in app.checkbox)
    button(app, "Select this page").click().run()
    assert "**10 selected**" in texts(app)


def test_sending_without_a_server_is_one_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened(project, "failures", monkeypatch)
    app.checkbox[0].check().run()
    button(app, "Send 1 to Argilla").click().run()
    assert not app.exception
    assert "Argilla is not running" in texts(app)
    assert "Nothing was sent" in texts(app)


def button(app: AppTest, label: str):  # type: ignore[no-untyped-def]
    """The button of this label."""
    return next(button for button in app.button if button.label == label)


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_pages_through_all_failures_once(failures: Run, sort: str) -> None:
    query = FailureQuery(sort=sort)
    pages = [failure_page(failures, query, page, 7) for page in (1, 2, 3, 4)]
    assert pages[0].pages == 4
    ids = [row["failure_id"] for page in pages for row in page.rows]
    assert sorted(ids) == sorted(failures.read("failures")["failure_id"].to_pylist())


def test_the_order_of_the_run_comes_first(failures: Run) -> None:
    rows = failure_page(failures, FailureQuery(), 2, 10).rows
    ids = failures.read("failures")["failure_id"].to_pylist()
    assert [row["failure_id"] for row in rows] == ids[10:20]


def test_the_widest_gap_can_come_first(failures: Run) -> None:
    rows = failure_page(failures, FailureQuery(sort="Widest gap in score"), 1, 50).rows
    gaps = [row["score"] - row["versus_score"] for row in rows if row["score"] is not None]
    assert gaps == sorted(gaps)


def test_the_training_page_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "p")
    run = make_training(project)
    rising = [{"step": step, "loss": 1 + step / 10} for step in range(40)]
    with pytest.raises(KeyboardInterrupt), project.draft(RunPlan("train", 9)) as draft:
        draft.write_text("log.jsonl", "".join(json.dumps(entry) + "\n" for entry in rising))
        raise KeyboardInterrupt
    shown = texts(opened(project, "training", monkeypatch))
    assert f"**divergence** in {escaped(draft.plan.run_id)}" in shown
    assert "1 at step 0, 4.7 at the end" in shown
    assert f"{escaped(run.id)}: 0 findings" in shown


def test_what_is_searched_for_is_never_sql(failures: Run) -> None:
    for text in ("'; DROP TABLE x; --", "%", "_", "\\", '"', "?"):
        page = failure_page(failures, FailureQuery(text=text, why=(text,)), 1, 10)
        assert page.matching == 0


def test_a_folder_whose_name_looks_like_a_pattern_is_read_itself(tmp_path: Path) -> None:
    asked, other = make_project(tmp_path / "a[1]"), make_project(tmp_path / "a1")
    run = make_failures(asked, 2)
    shutil.copytree(run.path, other.runs_dir / run.id)
    shutil.copy(make_failures(other, 3).path / "failures.parquet", other.runs_dir / run.id)
    assert failure_page(run, FailureQuery(), 1, 10).matching == 2


def test_failures_are_counted(failures: Run) -> None:
    assert failure_counts(failures, "why") == {"lost": 12, "thin evidence": 6, "tied": 6}
    assert failure_counts(failures, "judged_by") == {
        "scorer:support-rubric": 12,
        "": 6,
        "people": 6,
    }
    for judge, count in {"": 6, "people": 6}.items():
        assert failure_page(failures, FailureQuery(judged_by=(judge,)), 1, 10).matching == count


def test_a_run_without_its_table_says_so(empty: Project) -> None:
    run = make_failures(empty, 2)
    (run.path / "failures.parquet").unlink()
    with pytest.raises(ProjectError, match="it has no failures"):
        failure_page(run, FailureQuery(), 1, 10)


def test_a_damaged_manifest_leaves_the_other_runs(empty: Project) -> None:
    kept, damaged = make_failures(empty, 2), make_failures(empty, 3)
    (damaged.path / "manifest.json").write_text("{")
    runs, broken = readable_runs(empty)
    assert [run.id for run in runs] == [kept.id]
    assert [error.where for error in broken] == [damaged.id]


@given(st.text() | st.text(alphabet="\\`*_{}[]()<>#+-.!|$:~ \n"))
def test_escaping_leaves_no_bare_punctuation(text: str) -> None:
    shown = escaped(text)
    assert set(re.sub(r"\\[!-/:-@\[-`{-~]", "", shown)).isdisjoint(string.punctuation)
    assert re.sub(r"\\(.)", r"\1", shown) == " ".join(text.split())


def test_the_command_serves_on_loopback_and_ends_with_the_signal(project: Project) -> None:
    port = free_port(0)
    argv = [sys.executable, "-m", "align", "dashboard", "--port", str(port)]
    process = subprocess.Popen(argv, cwd=project.root, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"dashboard: http://127.0.0.1:{port}")
        assert answers(f"http://127.0.0.1:{port}/_stcore/health")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) is not None


def answers(url: str) -> bool:
    """Whether the address answers within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            time.sleep(0.2)
    return False


@pytest.fixture
def taken() -> Iterator[int]:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_taken_port_is_one_line(
    project: Project, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    result = CliRunner().invoke(main, ["dashboard", "--port", str(taken)])
    assert result.exit_code == 1
    assert result.output.startswith(f"error: 127.0.0.1:{taken}: the port cannot be used")
    with pytest.raises(ResourceError):
        free_port(taken)


def test_the_process_reports_nothing_and_listens_on_loopback() -> None:
    argv = command(8501)
    assert "--browser.gatherUsageStats=false" in argv
    assert "--server.address=127.0.0.1" in argv
    assert os.path.isfile(argv[argv.index("run") + 1])  # noqa: PTH113
