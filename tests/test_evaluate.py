"""`evaluate`: who won and who says so, on prompts nobody was trained on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from click.testing import CliRunner
from loop_runs import generated, judged, new_project, trained

from align.build import build
from align.cli import main
from align.evaluate.compare import compare, summary, votes_held
from align.evaluate.opponents import opponents
from align.evaluate.pools import PromptChoice
from align.evaluate.report import lines
from align.evaluate.reward import completion_logprobs, held_out_pairs, reward_accuracy
from align.evaluate.scorers import CALLED, SCORERS, scorer_named
from align.evaluate.step import evaluate
from align.model import load_model
from align.model_ref import resolve_model
from align.sampling import Sampling
from align.split import fingerprints
from annotate import support_desk
from annotate.errors import InputError
from annotate.records import read_table, table_from_rows
from annotate.runs import Project, Run, RunPlan

SHORT = Sampling(max_new_tokens=16)
DESK = PromptChoice("support-desk", 12, None, 6)
TRAINED_ON = {f"prompt {n}": [f"good {n}", f"bad {n}"] for n in range(40)}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


@pytest.fixture
def m0(project: Project) -> Run:
    return trained(project, "base", 0, (), seed=0)


@pytest.fixture
def m1(project: Project, m0: Run) -> Run:
    return next_model(project, m0, TRAINED_ON)


def next_model(project: Project, before: Run, prompts: dict[str, list[str]]) -> Run:
    """A model of the next round, with everything behind it."""
    source = generated(project, prompts, round=before.round + 1, parents=(before,))
    built = build(project, [judged(project, source, {text: [3, 3] for text in prompts})])
    return trained(project, before.id, source.round, (built, before), seed=before.round + 1)


# Comparing


def table(model: str, scores: list[float], tokens: int = 10) -> pd.DataFrame:
    ids = [f"p{at}" for at in range(len(scores))]
    columns = {"output_id": [f"{model}-{one}" for one in ids], "prompt_id": ids, "model": model}
    completions = [f"By {model} to {one}." for one in ids]
    return pd.DataFrame({**columns, "completion": completions, "tokens": tokens, "score": scores})


NOBODY = votes_held([])


def test_the_higher_score_wins_and_equal_ones_tie() -> None:
    rows = compare(
        table("new", [2.0, 1.0, 1.0]), table("old", [1.0, 1.0, 3.0]), NOBODY, "support-rubric"
    )
    assert rows["outcome"].to_pylist() == [1.0, 0.5, 0.0]
    assert set(rows["judged_by"].to_pylist()) == {"scorer:support-rubric"}
    assert rows["votes"].null_count == 3


def test_annotators_come_before_the_scorer_on_either_side_of_the_pair() -> None:
    # "new-p0" < "old-p0": a is the new model's. "zed" > "old": a is the old model's.
    held = pd.DataFrame(
        {
            "output_a": ["new-p0", "old-p0"],
            "output_b": ["old-p0", "zed-p0"],
            "winner": [-1.0, -1.0],
            "held": [3, 1],
            "judged_by": ["people", "simulated annotators"],
        }
    )
    old = table("old", [0.0, 0.0])
    rows = compare(table("new", [5.0, 5.0]), old, held, "support-rubric").to_pylist()
    assert [(row["outcome"], row["judged_by"], row["votes"]) for row in rows] == [
        (0.0, "people", 3),
        (1.0, "scorer:support-rubric", None),
    ]
    (first, _) = compare(table("zed", [5.0, 5.0]), old, held, None).to_pylist()
    assert (first["outcome"], first["judged_by"]) == (1.0, "simulated annotators")


def test_two_completions_that_are_the_same_tie_unless_somebody_says_otherwise() -> None:
    new, old = (
        table(model, [np.nan, np.nan]).assign(completion="Yes.") for model in ("new", "old")
    )
    new.loc[1, "completion"] = " Yes.\n"
    held = pd.DataFrame(
        {
            "output_a": ["new-p1"],
            "output_b": ["old-p1"],
            "winner": [1.0],
            "held": [1],
            "judged_by": "people",
        }
    )
    rows = compare(new, old, held, None)
    assert rows["outcome"].to_pylist() == [0.5, 1.0]
    assert rows["judged_by"].to_pylist() == ["same completion", "people"]
    assert summary(rows, seed=0)["win_rate"]["n"] == 2


def test_without_votes_or_scorer_nothing_is_decided() -> None:
    rows = compare(table("new", [np.nan]), table("old", [np.nan]), NOBODY, None)
    assert rows["outcome"].to_pylist() == [None]
    figures = summary(rows, seed=0)
    assert figures["unjudged"] == 1
    assert figures["win_rate"]["value"] is None
    assert figures["win_rate"]["reason"] == "nobody and no scorer judged these pairs"


def test_summary_counts_a_tie_as_half_and_length_beside_it() -> None:
    # 5 wins, 2 ties, 3 losses: (5 + 2/2) / 10 = 0.6; the new model's are 4 tokens longer.
    new = table("new", [2.0] * 5 + [1.0] * 2 + [0.0] * 3, tokens=14)
    figures = summary(compare(new, table("old", [1.0] * 10), NOBODY, "support-rubric"), seed=0)
    assert figures["win_rate"]["value"] == pytest.approx(0.6)
    assert figures["win_rate"]["low"] < 0.6 < figures["win_rate"]["high"]
    assert (figures["wins"], figures["ties"], figures["losses"]) == (5, 2, 3)
    assert figures["judged_by"] == {"scorer:support-rubric": 10}
    assert figures["longer_by"]["value"] == 4.0


def test_scorers_are_named_and_called() -> None:
    with pytest.raises(InputError, match="There are: support-rubric"):
        scorer_named("rubrik")
    assert set(SCORERS) == set(CALLED)
    *asked, good = support_desk.dialogues(1, seed=0, quality=(1000.0, 1.0))[0]
    rubric = SCORERS["support-rubric"]
    assert rubric(asked, good["content"]) > rubric(asked, "No.")


# Which models


def test_opponents_are_the_previous_model_and_round_0s(project: Project, m1: Run) -> None:
    m0 = m1.parents[1]
    (only,) = opponents(project, m1)
    assert (only.ref.name, only.roles) == (m0.id, ("previous", "round 0"))
    m2 = next_model(project, m1, {f"other {n}": ["good", "bad"] for n in range(9)})
    assert [(one.ref.name, one.roles) for one in opponents(project, m2)] == [
        (m1.id, ("previous",)),
        (m0.id, ("round 0",)),
    ]
    (base,) = opponents(project, m0)
    assert base.ref.name == "base"
    (named,) = opponents(project, m2, ["base"])
    assert (named.ref.name, named.roles) == ("base", ("named",))


def test_a_model_needs_another_to_be_compared_with(project: Project, m0: Run) -> None:
    with pytest.raises(InputError, match="not compared with itself"):
        opponents(project, m0, [m0.id])
    scratch = trained(project, "", 0, (), seed=5)
    with pytest.raises(InputError, match="trained from scratch"):
        opponents(project, scratch)


# Reward accuracy


def test_logprobs_are_those_of_the_completion_alone(project: Project, m0: Run) -> None:
    loaded = load_model(resolve_model(project, m0.id))
    prompts = [[{"role": "user", "content": text}] for text in ("Hi", "A longer question")]
    answers = [[{"role": "assistant", "content": text}] for text in ("Yes.", "No")]
    found = completion_logprobs(loaded, prompts, answers, batch_size=2)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        head = f"<|user|>{prompt[0]['content']}<|end|><|assistant|>"
        text = f"{head}{answer[0]['content']}<|end|>"
        ids, start = (loaded.tokenizer(part)["input_ids"] for part in (text, head))
        with torch.inference_mode():
            each = torch.log_softmax(loaded.model(torch.tensor([ids])).logits[0].double(), -1)
        expected = sum(each[at - 1, ids[at]].item() for at in range(len(start), len(ids)))
        assert found[row] == pytest.approx(expected, abs=1e-3)


def test_reward_accuracy_compares_log_ratios() -> None:
    pairs = table_from_rows(
        "preference", [{"row_id": f"r{n}", "prompt_id": f"p{n}"} for n in "abc"]
    )
    policy = {"chosen": np.array([-1.0, -5.0, -2.0]), "rejected": np.array([-3.0, -1.0, -2.0])}
    reference = {"chosen": np.array([-2.0, -7.0, -2.0]), "rejected": np.array([-2.0, -2.0, -2.0])}
    # Log-ratios, chosen against rejected: 1 > -1 right; 2 > 1 right although -5 < -1; 0 = 0 a tie.
    found = reward_accuracy(pairs, policy, reference)
    assert found.value == pytest.approx(2.5 / 3)
    assert found.n == 3
    assert reward_accuracy(None, {}, {}).reason == "trained without preferences"
    assert reward_accuracy(pairs.slice(0, 0), {}, {}).reason == "no pair is held out"


# The step


def test_an_evaluation_holds_its_evidence(project: Project, m1: Run) -> None:
    run = evaluate(project, m1, choice=DESK, scorer="support-rubric", sampling=SHORT)
    assert run.round == 1
    prompts, outputs, scores = (run.read(name) for name in ("prompts", "outputs", "scores"))
    assert prompts["split"].to_pylist() == ["eval"] * 12 + ["train"] * 6
    assert outputs.num_rows == 36
    assert scores.num_rows == 18
    metrics = run.metrics
    assert (metrics["held_out"], metrics["pool"], metrics["quarantined"]) == (12, 6, 0)
    (against,) = metrics["comparisons"]
    assert against["roles"] == ["previous", "round 0"]
    # The pool does not count.
    assert against["win_rate"]["n"] == 12
    pairs = held_out_pairs(m1)
    assert pairs is not None
    assert metrics["reward_accuracy"]["n"] == pairs.num_rows > 0
    text = "\n".join(lines(run))
    assert "judged by the rubric behind the simulated annotators 12" in text
    assert not (run.path / "shards").exists()
    assert run.ancestor("train").id == m1.id


def test_the_next_round_measures_on_the_same_prompts_and_reuses_completions(
    project: Project, m1: Run
) -> None:
    first = evaluate(project, m1, choice=DESK, scorer="support-rubric", sampling=SHORT)
    m2 = next_model(project, m1, {f"other {n}": ["good", "bad"] for n in range(9)})
    # M1's and M0's weights are gone, yet what they said is known.
    sampling = {row["output_id"]: row for row in first.read("outputs").to_pylist()}
    second = evaluate(
        project, m2, choice=PromptChoice(pool_count=0), scorer="support-rubric", sampling=SHORT
    )
    held_out = [
        set(
            run.read("prompts")
            .filter(pc.equal(run.read("prompts")["split"], "eval"))["prompt_id"]
            .to_pylist()
        )
        for run in (first, second)
    ]
    assert held_out[0] == held_out[1]
    old = [row for row in second.read("outputs").to_pylist() if row["model"] != m2.id]
    assert len(old) == 24
    assert all(row["output_id"] in sampling for row in old)
    assert [one["roles"] for one in second.metrics["comparisons"]] == [["previous"], ["round 0"]]
    # The same command on either model finds its run.
    again = evaluate(
        project, m2, choice=PromptChoice(pool_count=0), scorer="support-rubric", sampling=SHORT
    )
    assert again.id == second.id


def test_completions_are_reused_only_if_drawn_alike(project: Project, m1: Run) -> None:
    run = evaluate(project, m1, choice=DESK, sampling=SHORT)
    other = evaluate(project, m1, choice=DESK, sampling=Sampling(max_new_tokens=16, top_p=0.5))
    # Two draws of so small a model may agree on a text, so how each was drawn tells.
    for drawn, top_p in ((run, 1.0), (other, 0.5)):
        rules = [json.loads(text) for text in drawn.read("outputs")["sampling"].to_pylist()]
        assert {rule["top_p"] for rule in rules} == {top_p}


def test_peoples_votes_decide_once_they_are_there(project: Project, m1: Run) -> None:
    first = evaluate(project, m1, choice=DESK, sampling=SHORT)
    assert first.metrics["comparisons"][0]["unjudged"] == 12
    own = first.read("outputs").filter(pc.equal(first.read("outputs")["model"], m1.id))
    judge_run = _judge_for(project, first, m1, wins=own["prompt_id"].to_pylist()[:12])
    second = evaluate(project, m1, choice=DESK, sampling=SHORT)
    assert second.id != first.id
    assert judge_run.id in [run.id for run in second.parents]
    (against,) = second.metrics["comparisons"]
    assert against["judged_by"] == {"people": 12}
    assert against["win_rate"]["value"] == 1.0


def _judge_for(project: Project, source: Run, model: Run, wins: list[str]) -> Run:
    """A judge run in which two people prefer `model` on these prompts."""
    from annotate.runs import RunPlan

    by_prompt: dict[str, dict[bool, str]] = {}
    for row in source.read("outputs").to_pylist():
        by_prompt.setdefault(row["prompt_id"], {})[row["model"] == model.id] = row["output_id"]
    rows: list[dict[str, Any]] = []
    for prompt_id in wins:
        a, b = sorted(by_prompt[prompt_id].values())
        won = by_prompt[prompt_id][True] == a
        rows.append(
            {
                "pair_id": f"j-{prompt_id}",
                "prompt_id": prompt_id,
                "output_a": a,
                "output_b": b,
                "votes": 2,
                "posterior": 0.9 if won else 0.1,
                "annotators": ["ada", "ben"],
            }
        )
    with project.draft(RunPlan("judge", 1, (source,), {}, 0)) as draft:
        draft.write("judgements", table_from_rows("judgements", rows))
    return draft.run


def test_prompts_trained_on_are_set_aside(project: Project, m1: Run) -> None:
    path = project.root / "mine.jsonl"
    rows = [{"prompt": text} for text in [*TRAINED_ON, "a fresh one"]]
    path.write_text("\n".join(map(json.dumps, rows)))
    run = evaluate(project, m1, choice=PromptChoice(str(path)), sampling=SHORT)
    build_run = m1.parents[0]
    rows_trained = build_run.read("preference")
    trained_on = rows_trained.filter(pc.equal(rows_trained["split"], "train"))
    leaked = set(fingerprints(trained_on["prompt"]).to_pylist())
    measured = set(fingerprints(run.read("prompts")["messages"]).to_pylist())
    assert not leaked & measured
    reasons = run.read("quarantine")["reason"].to_pylist()
    assert reasons == ["a model compared was trained on it"] * len(leaked)
    only_trained = project.root / "leaked.jsonl"
    text = trained_on["prompt"].to_pylist()[0][0]["content"]
    only_trained.write_text(json.dumps({"prompt": text}))
    with pytest.raises(InputError, match="a model was trained on all 1 of these prompts"):
        evaluate(project, m1, choice=PromptChoice(str(only_trained)), sampling=SHORT)


def test_the_pool_holds_no_held_out_prompt(project: Project, m1: Run) -> None:
    path = project.root / "both.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"fresh {n}"}) for n in range(4)))
    choice = PromptChoice(str(path), 2, str(path), 4)
    run = evaluate(project, m1, choice=choice, sampling=SHORT)
    assert run.read("prompts")["split"].to_pylist() == ["eval", "eval", "train", "train"]
    assert run.read("quarantine")["reason"].to_pylist() == ["it is held out for evaluation"] * 2


def test_no_held_out_prompts_says_what_to_type(project: Project, m1: Run) -> None:
    with pytest.raises(InputError, match="--prompts FILE, a run, or"):
        evaluate(project, m1, sampling=SHORT)
    with pytest.raises(InputError, match="no such scorer"):
        evaluate(project, m1, choice=DESK, scorer="nonesuch")


def test_a_scorer_that_cannot_judge_says_so_before_anything_is_sampled(
    project: Project, m1: Run
) -> None:
    path = project.root / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "Not about the desk"}))
    with pytest.raises(InputError, match="its rubric cannot score it"):
        evaluate(project, m1, choice=PromptChoice(str(path)), scorer="support-rubric")
    assert project.unfinished() == []


def test_the_command_prints_figures_and_what_is_next(
    project: Project, m1: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    words = "evaluate --prompts support-desk --count 8 --pool-count 4 --max-new-tokens 16".split()
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "win rate         undefined (nobody and no scorer judged these pairs)" in done.output
    assert "next handloom push r1-evaluate-" in done.output
    done = CliRunner().invoke(main, [*words, "--scorer", "support-rubric"])
    assert "on 8 held-out prompts; intervals are 95 %" in done.output
    assert "next handloom failures r1-evaluate-" in done.output
    assert read_table(project.latest("evaluate").path / "scores.parquet").num_rows == 12
    assert isinstance(project.latest("evaluate").read("scores"), pa.Table)


def test_an_encoder_decoder_is_no_reward_model(project: Project) -> None:
    with project.draft(RunPlan("train", 0)) as draft:
        draft.note(makes="encoder-decoder")
    with pytest.raises(InputError, match="an encoder-decoder, and only decoders are compared"):
        evaluate(project, draft.run, scorer="support-rubric")
