"""The rules' arithmetic, how a log is read, and what is said; real trainings are in
test_health_runs.py."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from loop_runs import new_project, prompt_row

from align.cli import main
from align.health import RULES, TEXT_RULES, Health, examine, health, log_of_entries
from align.health.log import Curve, read_log
from align.health.report import lines, plot, sparkline
from align.health.robust import at_end, noise, spread, trend
from align.health.texts import copied, repeated
from annotate.errors import ProjectError
from annotate.records import content_id, output_rows, table_from_rows
from annotate.runs import Project, Run, RunPlan

ROOT = Path(__file__).parent.parent


def logged(**curves: Any) -> list[dict[str, Any]]:
    """Log entries; a figure's values are one a step from step 1, its `__` is a slash."""
    count = max(len(values) for values in curves.values())
    return [
        {"step": step + 1, "epoch": step / count}
        | {
            name.replace("__", "/"): float(values[step])
            for name, values in curves.items()
            if step < len(values)
        }
        for step in range(count)
    ]


def flagged(entries: list[dict[str, Any]]) -> set[str]:
    return {verdict.rule for verdict in examine(log_of_entries(entries)) if verdict.flagged}


def falling(n: int, seed: int = 0, noise: float = 0.05) -> np.ndarray:
    """A loss as trainings have it: a power of the step, with noise."""
    rng = np.random.default_rng(seed)
    return 1 + 4 * (1 + np.arange(n)) ** -0.4 + rng.normal(0, noise, n)


def train_run(project: Project, entries: list[dict[str, Any]], *, seed: int = 0) -> Run:
    with project.draft(RunPlan("train", 1, settings={"seed": seed}, seed=seed)) as draft:
        draft.write_text("log.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries))
    return draft.run


def generate_run(project: Project, model: str, answers: dict[str, str], versus: str = "") -> Run:
    """A generate run of one answer a prompt by `model`, and by another if `versus` is a text."""
    prompts, outputs = [], []
    for text, answer in answers.items():
        prompt_id = content_id("p", text)
        prompts.append(prompt_row(prompt_id, text))
        said = [(model, answer), *([("m0", versus)] if versus else [])]
        made = output_rows(prompt_id, said)
        outputs += [row | {"tokens": len(row["completion"].split())} for row in made]
    with project.draft(RunPlan("generate", 1, settings={"answers": sorted(answers)})) as draft:
        draft.write("prompts", table_from_rows("prompts", prompts))
        draft.write("outputs", table_from_rows("outputs", outputs))
    return draft.run


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


def test_noise_and_trend_by_hand() -> None:
    # 0 1 0 1 …: differences 1 and -1, whose median is ±1 or 0 and MAD 1; over √2 for one value.
    assert noise(np.array([0.0, 1.0] * 8 + [0.0])) == pytest.approx(1.4826 / math.sqrt(2))
    assert spread(np.array([1.0, 2.0, 3.0, 4.0, 1000.0])) == pytest.approx(1.4826)
    line = trend(np.arange(10), 2.0 * np.arange(10))
    assert (line.change, line.low, line.high) == pytest.approx((18.0, 18.0, 18.0))
    # One wild value moves a least-squares line, and this one not at all.
    wild = 2.0 * np.arange(11)
    wild[5] = 1e6
    assert trend(np.arange(11), wild).change == pytest.approx(20.0)
    # Of 16 values the last eighth is two, so the last three: 13, 14, 15.
    assert at_end(np.arange(16.0)) == 14.0


def test_a_trend_of_many_points_is_that_of_their_medians() -> None:
    line = trend(np.arange(10_000), np.arange(10_000) / 10_000)
    assert line.change == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("n", [12, 24, 60, 400])
def test_noise_alone_is_hardly_ever_flagged(n: int) -> None:
    """Of 50 healthy curves a length, each with three figures, none may be flagged."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        loss = falling(n, seed, noise=0.1)
        entries = logged(
            loss=loss,
            grad_norm=np.exp(rng.normal(0, 0.5, n)),
            learning_rate=1e-3 * (1 + np.cos(np.pi * np.arange(n) / n)) / 2,
            rewards__margins=1.5 * np.arange(n) / n + rng.normal(0, 0.3, n),
            rewards__chosen=rng.normal(0, 0.3, n),
            rewards__rejected=-1.5 * np.arange(n) / n + rng.normal(0, 0.3, n),
        )
        assert flagged(entries) == set(), seed


def test_a_figure_that_is_no_number_is_said_with_its_step() -> None:
    entries = [*logged(loss=falling(10)), {"step": 11, "loss": math.nan, "grad_norm": math.inf}]
    (verdict,) = [one for one in examine(log_of_entries(entries)) if one.flagged]
    assert (verdict.rule, verdict.state, verdict.since) == ("not a number", "serious", 11)


def test_the_odd_infinite_gradient_of_float16_is_passed_over() -> None:
    entries = logged(loss=falling(30), grad_norm=np.ones(30))
    for at in (3, 17):
        entries[at]["grad_norm"] = math.inf
    assert flagged(entries) == set()
    entries[20]["grad_norm"] = math.nan
    assert flagged(entries) == {"exploding gradients"}


def test_a_plateau_is_not_a_loss_that_has_reached_zero() -> None:
    steps = np.arange(60)
    rng = np.random.default_rng(0)
    stuck = 2 + 3 * np.exp(-steps / 3) + rng.normal(0, 0.02, 60)
    assert flagged(logged(loss=stuck)) == {"plateau"}
    done = np.abs(0.69 * np.exp(-steps / 3) + rng.normal(0, 0.002, 60))
    assert flagged(logged(loss=done)) == set()


def test_a_held_out_loss_that_rises_with_the_other_is_no_overfitting() -> None:
    entries = logged(loss=falling(40))
    for step, value in ((10, 2.0), (20, 1.8), (30, 2.2), (40, 2.4)):
        entries[step - 1]["eval_loss"] = value
    assert flagged(entries) == {"overfitting"}
    for entry in entries[20:]:
        entry["loss"] = 4.0
    assert "divergence" in flagged(entries)
    assert "overfitting" not in flagged(entries)


def test_the_loss_of_rl_is_not_looked_at_but_its_reward() -> None:
    rng = np.random.default_rng(0)
    rising = np.linspace(0, 2, 40) + rng.normal(0, 0.1, 40)
    loss = rng.normal(0, 1, 40) + np.linspace(0, 9, 40)
    assert flagged(logged(loss=loss, reward=rising)) == set()
    lost = np.concatenate([rising, np.linspace(2, 0, 40)])
    (verdict,) = [one for one in examine(log_of_entries(logged(reward=lost))) if one.flagged]
    assert verdict.rule == "divergence"
    assert verdict.said.startswith("2 at step 39")  # the reward's own value, not its negative


def test_a_held_out_reward_that_falls_is_hacking() -> None:
    rng = np.random.default_rng(0)
    reward = np.linspace(0, 2, 40) + rng.normal(0, 0.1, 40)
    other = np.concatenate([np.linspace(0, 1, 15), np.linspace(1, -1, 25)])
    kwargs = {"reward": reward, "rewards__judge__mean": reward}
    assert flagged(logged(**kwargs, rewards__held_out__mean=other)) == {"reward hacking"}
    assert flagged(logged(**kwargs, rewards__held_out__mean=reward)) == set()


def test_kl_is_by_token_only_where_completions_are_sampled() -> None:
    kl = np.linspace(0, 2, 30)  # nats
    lengths = np.full(30, 100.0)
    rules = flagged(logged(kl=kl, reward=np.linspace(0, 1, 30), completions__mean_length=lengths))
    assert rules == {"KL runaway"}
    assert flagged(logged(kl=kl)) == set()
    assert flagged(logged(kl=50 * kl)) == {"KL runaway"}


def test_what_was_not_logged_or_too_rarely_has_a_reason() -> None:
    verdicts = {one.rule: one for one in examine(log_of_entries(logged(loss=falling(9))))}
    assert verdicts["spike"].state == "unknown"
    assert verdicts["spike"].said.startswith("9 points of loss, fewer than 12")
    assert verdicts["KL runaway"].state == "not logged"
    assert verdicts["divergence"].state == "fine"
    assert set(verdicts) == set(RULES)


def test_what_only_the_end_can_tell_waits_for_it() -> None:
    entries = logged(loss=np.full(30, 2.0))
    assert {one.rule for one in examine(log_of_entries(entries)) if one.flagged} == {"underfitting"}
    running = examine(log_of_entries(entries), finished=False)
    assert not any(verdict.flagged for verdict in running)


def test_a_log_that_is_being_written_loses_its_last_line_only(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\nrubbish\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    log = read_log(path)
    assert log.curves["loss"].values.tolist() == [2.0, 1.0]
    assert log.unreadable == 1
    with pytest.raises(ProjectError, match="cannot be read"):
        read_log(tmp_path / "none.jsonl")


VALUES = st.one_of(
    st.floats(),
    st.integers(),
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.just(10**400),
    st.lists(st.integers(), max_size=2),
)
NAMES = st.sampled_from(
    "loss eval_loss grad_norm learning_rate reward reward_std kl objective/kl rewards/margins "
    "rewards/chosen rewards/rejected eval_rewards/margins completions/mean_length "
    "rewards/held_out/mean frac_reward_zero_std mean_token_accuracy train_runtime".split()
)
ENTRIES = st.dictionaries(NAMES, VALUES, max_size=6).flatmap(
    lambda entry: st.one_of(
        st.just(entry), st.builds(lambda step: {**entry, "step": step}, st.integers(0, 99) | VALUES)
    )
)


@given(st.lists(ENTRIES | VALUES, max_size=60), st.booleans())
def test_no_log_is_too_odd(entries: list[Any], finished: bool) -> None:
    log = log_of_entries(entries)
    verdicts = examine(log, finished=finished)
    found = Health("r1-train-0", finished, log, verdicts)
    json.dumps(found.to_dict())
    assert lines(found)
    assert all(verdict.said and (verdict.remedy or not verdict.flagged) for verdict in verdicts)


@given(st.lists(st.floats(-1e150, 1e150), min_size=8, max_size=80), NAMES)
def test_no_curve_is_too_odd(values: list[float], name: str) -> None:
    entries = [
        {"step": step, name: value, "loss": value, "grad_norm": value, "learning_rate": value}
        for step, value in enumerate(values)
    ]
    log = log_of_entries(entries)
    assert lines(Health("r1-train-0", True, log, examine(log)))


@given(st.binary(max_size=200))
def test_no_file_is_too_odd(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        path.write_bytes(content)
        examine(read_log(path))


def test_a_plot_shows_range_spike_and_step() -> None:
    values = np.ones(1000)
    values[500] = 9.0
    curve = Curve("loss", np.arange(1000), values)
    rows = plot(curve, since=500)
    assert len(rows) == 7
    assert rows[0].startswith("9 │")
    assert rows[0].count("█") == 1  # one column of sixty holds the spike
    column = rows[0].index("█")
    assert rows[5].index("^") == column
    assert "loss by step" in rows[6]
    assert "█" in sparkline(curve)


def test_repetition_by_hand() -> None:
    # 32 letters a: 17 windows of 16, of which all but the first came before.
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    shares = repeated(pa.array(["a" * 32, alphabet, "a" * 31, None, "Ab \n" * 20]))
    assert shares[0] == pytest.approx(16 / 17)
    assert shares[1] == 0.0
    assert np.isnan(shares[2:4]).all()
    # "ab ab ab …", 59 characters without the last blank: 44 windows, of which 3 are new.
    assert shares[4] == pytest.approx(41 / 44)


def test_copies_by_hand() -> None:
    prompt = "the quick brown fox jumps over the lazy dog"
    texts = pa.array([prompt.upper(), prompt[::-1], prompt[:16] + "0123456789abcdef", "the"])
    shares = copied(texts, pa.array([prompt] * 4))
    assert shares[0] == 1.0
    assert shares[1] == 0.0
    assert shares[2] == pytest.approx(1 / 17)  # its first window of 17
    assert np.isnan(shares[3])


def test_texts_of_another_prompt_are_not_copied() -> None:
    one, two = "the quick brown fox jumps over it", "a lazy dog sleeps below the table all day"
    assert copied(pa.array([one, two]), pa.array([two, one])).tolist() == [0.0, 0.0]


@given(st.lists(st.text(), max_size=8))
def test_shares_of_texts_are_shares(texts: list[str]) -> None:
    encodable = [text.encode("utf-8", "ignore").decode() for text in texts]
    for shares in (
        repeated(pa.array(encodable, pa.string())),
        copied(pa.array(encodable, pa.string()), pa.array(encodable[::-1], pa.string())),
    ):
        assert len(shares) == len(texts)
        known = shares[~np.isnan(shares)]
        assert ((known >= 0) & (known <= 1)).all()


PROMPTS = [
    f"Please tell me how lamp number {number} is repaired, step by step." for number in range(40)
]


@pytest.mark.parametrize(
    ("answer", "versus", "expected"),
    [
        (
            lambda number: f"{number} " + "I can help you with that, sir. " * 9,
            "",
            "repetitive output",
        ),
        (lambda number: PROMPTS[number], "", "copied output"),
        (
            lambda number: "I cannot help you with that, I am afraid, sorry.",
            "",
            "one output for all",
        ),
        (
            lambda number: f"{number} one two three four" + " five" * (number % 3),
            "one two",
            "longer or shorter output",
        ),
    ],
)
def test_what_a_model_writes_is_looked_at(
    project: Project, answer: Any, versus: str, expected: str
) -> None:
    run = train_run(project, logged(loss=falling(30)))
    answers = {prompt: answer(number) for number, prompt in enumerate(PROMPTS)}
    source = generate_run(project, run.id, answers, versus)
    found = health(project, run.id)
    assert found.texts_of == source.id
    assert [verdict.rule for verdict in found.flagged] == [expected]
    assert found.flagged[0].n == 40


def test_few_texts_flag_nothing(project: Project) -> None:
    run = train_run(project, logged(loss=falling(30)))
    generate_run(project, run.id, {PROMPTS[0]: "a long text " * 9, PROMPTS[1]: "It was unplugged."})
    assert health(project, run.id).flagged == []


def invoked(project: Project, *words: str) -> Any:
    return CliRunner().invoke(main, ["-C", str(project.root), "health", *words])


def test_the_command_says_it_with_curve_and_remedy(project: Project) -> None:
    spoilt = falling(30)
    spoilt[19] = 9.0
    run = train_run(project, logged(loss=spoilt))
    said = invoked(project)
    assert said.exit_code == 0
    assert "WARNING: spike: 9 at step 20 between values around" in said.output
    assert "^ step 20" in said.output
    assert "→ Look at the rows of the batches before that step" in said.output
    assert f"{run.id}: spike (warning)" in said.output
    assert f"next handloom generate {run.id}" in said.output
    as_json = json.loads(invoked(project, run.id, "--json").output)
    assert as_json["flagged"] == ["spike"]
    assert {verdict["rule"] for verdict in as_json["verdicts"]} == set(RULES)


def test_only_a_serious_finding_makes_strict_fail(project: Project) -> None:
    spoilt = falling(30)
    spoilt[19] = 9.0
    mild = train_run(project, logged(loss=spoilt))
    bad = train_run(project, logged(loss=falling(30)[::-1]), seed=1)
    assert invoked(project, mild.id, "--strict").exit_code == 0
    assert invoked(project, bad.id).exit_code == 0
    assert invoked(project, bad.id, "--strict").exit_code == 1


def test_a_training_that_has_not_finished_is_examined_too(project: Project) -> None:
    with pytest.raises(KeyboardInterrupt), project.draft(RunPlan("train", 1)) as draft:
        draft.write_text("log.jsonl", json.dumps({"step": 1, "loss": math.nan}) + "\n")
        raise KeyboardInterrupt
    (name,) = project.unfinished()
    said = invoked(project, name)
    assert said.output.startswith("unfinished")
    assert "SERIOUS: not a number" in said.output
    assert invoked(project, name[:10]).output == said.output


def test_what_is_no_training_is_one_line(project: Project) -> None:
    run = generate_run(project, "m", {"why?": "because"})
    for words, reason in (
        ((run.id,), "not of train"),
        (("r9",), "no such run"),
        ((), "no train run"),
    ):
        said = invoked(project, *words)
        assert said.exit_code == 1
        assert reason in said.output
        assert said.output.count("\n") == 1


def test_the_page_explains_every_rule() -> None:
    page = (ROOT / "docs" / "health.md").read_text()
    for rule in (*RULES.values(), *TEXT_RULES.values()):
        assert f"| {rule.name} | {rule.looks_at} | {rule.demands} | {rule.reason} |\n" in page
        assert rule.remedy
