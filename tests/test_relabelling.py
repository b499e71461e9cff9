"""What a new version of a guideline does to agreement, through the real Argilla."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from factories import Argilla, connected_project, make_generated, submit
from scipy.stats import ttest_ind

from align.cli import main
from annotate.errors import InputError, ProjectError
from annotate.judge import newest_pulls
from annotate.pull import pull
from annotate.push import push
from annotate.relabelling import FEWEST, difference_of_means, effect, relabel
from annotate.runs import Project, Run

PROMPTS = 24


def answer(
    project: Project, push_run: Run, *, agree: Callable[[int], bool], clause: str | None = None
) -> Run:
    """Two people answer every item, with the same vote where `agree` says so of its number."""
    items = push_run.read("items")["item_id"].to_pylist()
    for who, other in (("ann", "a_better"), ("bob", "b_better")):
        values = {
            item: {"preference": {"value": "a_better" if agree(number) else other}}
            | ({"clause": {"value": [clause]}} if clause else {})
            for number, item in enumerate(items)
        }
        submit(project, push_run, who, values)
    return pull(project, push_run)


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = connected_project(tmp_path, argilla_server, monkeypatch)
    monkeypatch.chdir(made.root)
    return made


def test_the_effect_of_a_new_version_is_measured_against_a_control(project: Project) -> None:
    first = push(project, make_generated(project, PROMPTS), guideline="preference@v1", batch="b")
    before = answer(project, first, agree=lambda n: n % 3 == 0)
    run = relabel(project, before, "preference@v1", "preference@v2", prompts=PROMPTS)
    assert relabel(project, before, "preference@v1", "preference@v2", prompts=PROMPTS) == run

    _, new, old = run.parents
    assert (new.read("items").num_rows, old.read("items").num_rows) == (12, 12)
    shown = {half.metrics["batches"][0] for half in (new, old)}
    assert all(name.startswith("again-") for name in shown)
    assert {*new.read("items")["prompt_id"].to_pylist()}.isdisjoint(
        old.read("items")["prompt_id"].to_pylist()
    )
    with pytest.raises(ProjectError, match="not fetched yet"):
        effect(project, run)

    answer(project, new, agree=lambda n: True, clause="truth")
    answer(project, old, agree=lambda n: n % 2 == 0)
    found = effect(project, run)
    assert found.means["new"]["after"] == 1
    assert found.means["old"]["after"] == pytest.approx(0.5)
    assert found.prompts == {"new": 12, "old": 12}
    wanted = (1 - found.means["new"]["before"]) - (0.5 - found.means["old"]["before"])
    assert found.effect.value == pytest.approx(wanted)
    assert found.effect.low is not None
    assert found.effect.low < found.effect.value

    # The second answers are no votes of the round.
    assert [each.id for each in newest_pulls(project)] == [before.id]

    said = CliRunner().invoke(main, ["guideline", "effect"])
    assert said.exit_code == 0, said.output
    assert "under preference@v2: agreement" in said.output
    said = CliRunner().invoke(main, ["guideline", "clauses", pull(project, new).id])
    assert "truth (preference@v2): ticked in 24 answers on 12 items" in said.output


def test_too_little_and_other_questions_are_refused(project: Project) -> None:
    first = push(project, make_generated(project, 8), guideline="preference@v1", batch="few")
    before = answer(project, first, agree=lambda n: True)
    with pytest.raises(InputError, match="8 prompts have two answers"):
        relabel(project, before, "preference@v1", "preference@v2")
    source = (project.root / "guidelines/preference/v1.md").read_text()
    other = source.replace("version: 1", "version: 3").replace("      unsafe: Unsafe\n", "")
    (project.root / "guidelines/preference/v3.md").write_text(other)
    with pytest.raises(InputError, match="cannot be compared"):
        relabel(project, before, "preference@v1", "preference@v3")


def test_guidelines_are_checked_and_published_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factories import make_project

    root = make_project(tmp_path).root
    monkeypatch.chdir(root)
    said = CliRunner().invoke(main, ["guideline", "check"])
    assert said.exit_code == 0, said.output
    assert "preference@v1: compare, overlap 2" in said.output
    new = root / "guidelines/preference/v9.md"
    text = (root / "guidelines/preference/v1.md").read_text().replace("version: 1", "version: 9")
    new.write_text(text.replace("coin", "die"))
    said = CliRunner().invoke(main, ["guideline", "diff", "preference@v1", "preference@v9"])
    assert "would toss a die" in said.output
    assert "are comparable" in said.output
    said = CliRunner().invoke(main, ["guideline", "check", "preference@v2", "preference"])
    checked = [line.split(":")[0] for line in said.output.splitlines()]
    assert checked == ["preference@v2", "preference@v1", "preference@v9"]
    said = CliRunner().invoke(main, ["guideline", "check", "preferences"])
    assert said.exit_code == 1
    assert "there is no guideline 'preferences'" in said.output
    said = CliRunner().invoke(main, ["guideline", "publish", "preference@v9"])
    assert "preference@v9: published" in said.output
    new.write_text(text)
    said = CliRunner().invoke(main, ["guideline", "check", "preference"])
    assert said.exit_code == 1
    assert "was edited since" in said.output


def test_the_interval_of_a_difference_covers_the_truth() -> None:
    """Agreement shares 0, 1/3 and 1 of two halves of 50 prompts; the true difference is 0.1."""
    rng = np.random.default_rng(5)
    values = np.array([0, 1 / 3, 1])
    old, new = np.array([0.3, 0.3, 0.4]), np.array([0.2, 0.3, 0.5])
    truth = float(values @ new - values @ old)
    covered = 0
    for trial in range(400):
        one, two = (rng.choice(values, size=50, p=p) for p in (new, old))
        found = difference_of_means(one, two, seed=trial, resamples=500)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_the_interval_of_few_prompts_is_as_wide_as_students_t() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=FEWEST), rng.normal(size=FEWEST)
    found = difference_of_means(one, two, resamples=20_000)
    expected = ttest_ind(one, two, equal_var=False).confidence_interval()
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.05)


def test_a_half_too_small_has_a_reason() -> None:
    few, enough = np.zeros(FEWEST - 1), np.ones(FEWEST)
    assert "needs 10" in difference_of_means(few, enough).reason
    assert difference_of_means(enough, enough).low is None  # nothing varies
