"""`generate`: seeded, independent of batches, resumable; where prompts come from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from killed import killed_at
from loop_runs import generated, new_project, trained
from tiny_model import write_tiny_model

from align.backends.tokens import prompt_tokens, reader
from align.cli import main
from align.completions import Shards, complete
from align.generate import generate
from align.model import Loaded, load_model
from align.model_ref import resolve_model
from align.prompts import PromptSource, read_prompts
from align.sampling import Sampling, _choose, draws, left_padded, sample_batch
from annotate.errors import InputError, TrainingError
from annotate.runs import Project, verify

SHORT = Sampling(max_new_tokens=24)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def desk(project: Project, count: int = 12, split: str = "train") -> PromptSource:
    return read_prompts(project, "support-desk", split=split, count=count)


def loaded(project: Project, tiny: str) -> Loaded:
    return load_model(resolve_model(project, tiny))


def test_a_run_holds_each_prompts_completions(project: Project, tiny: str) -> None:
    source = desk(project)
    run = generate(project, [tiny], source, n=3, sampling=SHORT)
    assert run.id.startswith("r1-generate-")
    outputs = run.read("outputs")
    assert outputs.num_rows == 36
    assert run.read("prompts").equals(source.prompts)
    counts = outputs.group_by("prompt_id").aggregate([("output_id", "count_distinct")])
    assert set(counts["output_id_count_distinct"].to_pylist()) == {3}
    first = json.loads(outputs["sampling"][0].as_py())
    assert first == {**SHORT.model_dump(), "sample": 0}
    assert run.metrics["models"]["tiny"]["outputs"] == 36
    assert pc.max(outputs["tokens"]).as_py() <= 24
    assert pc.max(outputs["logprob"]).as_py() < 0
    assert sorted(path.name for path in run.path.iterdir()) == [
        "manifest.json",
        "outputs.parquet",
        "prompts.parquet",
        "quarantine.parquet",
    ]


def test_batch_size_and_order_do_not_change_a_completion(project: Project, tiny: str) -> None:
    source = desk(project)
    whole = generate(project, [tiny], source, sampling=SHORT).read("outputs")
    backwards = PromptSource(source.prompts.take(list(range(11, -1, -1))), source.quarantine)
    parts = generate(project, [tiny], backwards, sampling=SHORT, batch_size=5, round=2)
    assert whole.num_rows == 24
    texts = dict(zip(whole["output_id"].to_pylist(), whole["logprob"].to_pylist(), strict=True))
    others = parts.read("outputs").to_pylist()
    # An output's id holds its text, so equal ids are equal completions.
    assert {row["output_id"] for row in others} == set(texts)
    assert all(abs(row["logprob"] - texts[row["output_id"]]) < 1e-3 for row in others)


def test_another_seed_another_completion_the_same_seed_the_same_run(
    project: Project, tiny: str
) -> None:
    source = desk(project, 4)
    run = generate(project, [tiny], source, sampling=SHORT)
    assert generate(project, [tiny], source, sampling=SHORT, batch_size=3).id == run.id
    other = generate(project, [tiny], source, sampling=Sampling(max_new_tokens=24, seed=1))
    ids = set(run.read("outputs")["output_id"].to_pylist())
    assert not ids & set(other.read("outputs")["output_id"].to_pylist())


def test_the_loop_agrees_with_transformers_own(project: Project, tiny: str) -> None:
    one = loaded(project, tiny)
    prompts = prompt_tokens(reader(one), desk(project, 5).prompts["messages"].to_pylist())
    greedy = Sampling(temperature=0, max_new_tokens=30)
    ends = [one.tokenizer.eos_token_id]
    mine = sample_batch(one.model, prompts, np.zeros((5, 30)), greedy, ends)
    for row, prompt in zip(mine, prompts, strict=True):
        theirs = one.model.generate(
            torch.tensor([prompt]), max_new_tokens=30, do_sample=False, return_dict_in_generate=True
        )
        tokens = theirs.sequences[0, len(prompt) :].tolist()
        assert row.tokens == [token for token in tokens if token not in ends]


def test_logprob_is_the_models_own_whatever_the_temperature(project: Project, tiny: str) -> None:
    one = loaded(project, tiny)
    prompts = prompt_tokens(reader(one), desk(project, 3).prompts["messages"].to_pylist())
    rules = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=60)
    uniform = np.stack([draws(0, str(row), 0, 60) for row in range(3)])
    end = one.tokenizer.eos_token_id
    for row, prompt in zip(
        sample_batch(one.model, prompts, uniform, rules, [end]), prompts, strict=True
    ):
        said = row.tokens + [end] * row.ended
        with torch.inference_mode():
            logits = one.model(torch.tensor([prompt + said])).logits[0].double()
        each = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
        expected = each.gather(1, torch.tensor(said)[:, None]).sum().item()
        assert row.logprob == pytest.approx(expected, abs=1e-3)


def test_a_row_ends_at_the_end_token_and_leaves_the_batch(project: Project, tiny: str) -> None:
    one = loaded(project, tiny)
    prompts = prompt_tokens(reader(one), desk(project, 8).prompts["messages"].to_pylist())
    uniform = np.stack([draws(0, str(row), 0, 40) for row in range(8)])
    every = sample_batch(one.model, prompts, uniform, Sampling(max_new_tokens=40), [])
    # Call a token that occurs the end: each row must be what it was, up to there.
    end = every[0].tokens[5]
    for row, full in zip(
        sample_batch(one.model, prompts, uniform, Sampling(max_new_tokens=40), [end]),
        every,
        strict=True,
    ):
        if end in full.tokens:
            assert row.ended
            assert row.tokens == full.tokens[: full.tokens.index(end)]
        else:
            assert not row.ended
            assert row.tokens == full.tokens


def test_draws_follow_the_distribution() -> None:
    # Softmax of log p is p: token 0 has .5, 1 has .3, 2 has .2; a number picks where it falls.
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)).expand(6, 3)
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81, 0.999], dtype=torch.float64)
    assert _choose(logits, uniform, Sampling()).tolist() == [0, 0, 1, 1, 2, 2]
    # top_p = .7 keeps 0 and 1, with .625 and .375 of what is left.
    assert _choose(logits, uniform, Sampling(top_p=0.7)).tolist() == [0, 0, 0, 1, 1, 1]
    assert _choose(logits, uniform, Sampling(temperature=0)).tolist() == [0] * 6
    # A token without probability is never drawn, not even by 0.
    impossible = torch.tensor([[-torch.inf, 0.0]], dtype=torch.float64)
    assert _choose(impossible, uniform[:1], Sampling()).tolist() == [1]


@given(st.integers(0, 2**40), st.text(), st.integers(0, 99))
def test_draws_are_fixed_and_extendable(seed: int, prompt: str, sample: int) -> None:
    few, many = draws(seed, prompt, sample, 5), draws(seed, prompt, sample, 9)
    assert (few == many[:5]).all()
    assert ((many >= 0) & (many < 1)).all()
    assert (many != draws(seed, prompt, sample + 1, 9)).any()


def test_padding_stands_left() -> None:
    ids, mask = left_padded([[7], [8, 9]], "cpu")
    assert ids.tolist() == [[0, 7], [8, 9]]
    assert mask.tolist() == [[0, 1], [1, 1]]


def test_several_models_share_their_draws(project: Project, tiny: str, tmp_path: Path) -> None:
    # The same weights under two names: the same completions, recorded as repeated.
    twin = str(write_tiny_model(tmp_path / "twin"))
    run = generate(project, [tiny, twin], desk(project, 4), n=1, sampling=SHORT)
    rows = run.read("outputs").to_pylist()
    assert [row["model"] for row in rows] == ["tiny", "twin"] * 4
    assert all(rows[at]["completion"] == rows[at + 1]["completion"] for at in range(0, 8, 2))
    assert run.metrics["duplicates"] == 4


def test_a_repeated_completion_keeps_ids_of_its_own(project: Project, tiny: str) -> None:
    greedy = Sampling(temperature=0, max_new_tokens=8)
    run = generate(project, [tiny], desk(project, 3), n=2, sampling=greedy)
    assert len(set(run.read("outputs")["output_id"].to_pylist())) == 6
    assert run.metrics["duplicates"] == 3


def test_the_round_follows_the_model(project: Project, tiny: str) -> None:
    train_run = trained(project, "base", 2, (), seed=0)
    run = generate(project, [train_run.id], desk(project, 2), sampling=SHORT)
    assert run.round == 3
    assert run.parents[0].id == train_run.id
    assert set(run.read("outputs")["model"].to_pylist()) == {train_run.id}
    assert generate(project, [tiny], desk(project, 2), sampling=SHORT).round == 1


def test_a_prompt_too_long_is_set_aside(project: Project, tiny: str) -> None:
    path = project.root / "prompts.jsonl"
    lines: list[Any] = [{"id": "long", "prompt": "x" * 300}, {"prompt": "short"}]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"prompt": ""}\nnot json\n')
    source = read_prompts(project, str(path), split="train")
    run = generate(project, [tiny], source, sampling=SHORT)
    assert run.read("outputs").num_rows == 2
    assert run.read("prompts").num_rows == 1
    aside = {row["line"]: row for row in run.read("quarantine").to_pylist()}
    assert aside[3]["reason"] == "the prompt is empty"
    assert "not JSON" in aside[4]["reason"]
    assert aside[None]["id"] == "long"
    assert "the model has 256" in aside[None]["reason"]


def test_no_prompt_that_fits_is_an_error(project: Project, tiny: str) -> None:
    with pytest.raises(InputError, match=r"all 2 prompts: .* the model has 256"):
        generate(project, [tiny], desk(project, 2), sampling=Sampling(max_new_tokens=256))


def test_prompts_of_a_run_are_those_of_the_side(project: Project) -> None:
    run = generated(project, {"a": ["x", "y"]}, split="eval")
    assert read_prompts(project, run.id, split="eval").parents == (run,)
    with pytest.raises(InputError, match="no prompts on the side 'train'"):
        read_prompts(project, run.id, split="train")
    with pytest.raises(InputError, match="neither a file nor a run"):
        read_prompts(project, "nonesuch.jsonl", split="train")


@pytest.mark.parametrize(
    ("model", "complaint"), [("./nonesuch", "no such folder"), ("empty", "cannot be loaded")]
)
def test_an_unknown_model_is_one_clear_line(
    project: Project, model: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match=complaint) as raised:
        generate(project, [model], desk(project, 2))
    assert "\n" not in str(raised.value)
    assert project.all_runs() == []


def test_a_model_named_twice_is_refused(project: Project, tiny: str) -> None:
    with pytest.raises(InputError, match="name each model once"):
        generate(project, [tiny, tiny], desk(project, 2))


def test_what_is_done_is_not_done_again(project: Project, tiny: str, tmp_path: Path) -> None:
    shards = Shards(tmp_path / "shards")
    ref, prompts = resolve_model(project, tiny), desk(project, 6).prompts
    first, _ = complete(ref, prompts.slice(0, 2), 1, SHORT, shards=shards)
    before = sorted(shards.folder.iterdir())
    both, _ = complete(ref, prompts, 1, SHORT, shards=shards, batch_size=3)
    assert sorted(shards.folder.iterdir())[: len(before)] == before
    assert both.num_rows == 6
    assert len(list(shards.folder.iterdir())) == 3  # one of two rows, then 3 + 1
    # A shard cut short by a power failure is made again.
    before[0].write_bytes(b"PAR1")
    again, _ = complete(ref, prompts, 1, SHORT, shards=shards)
    assert again.sort_by("prompt_id").equals(both.sort_by("prompt_id"))
    assert first.num_rows == 2


def test_killed_and_repeated_is_as_if_never_killed(
    project: Project, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["generate", tiny, "--count", "30", "--max-new-tokens", "24", "--batch-size", "4"]
    assert killed_at(project.root, ".*.partial/shards/000003.parquet", *words)
    (unfinished,) = project.unfinished()
    shards = list((project.runs_dir / f".{unfinished}.partial" / "shards").glob("*.parquet"))
    assert 4 <= len(shards) < 15
    monkeypatch.chdir(project.root)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "60 completions of 30 prompts" in done.output
    run = project.resolve(unfinished)
    assert verify(project) == []
    untouched = new_project(tmp_path / "other")
    expected = generate(untouched, [tiny], desk(untouched, 30), sampling=SHORT)
    assert expected.id == run.id
    ids = run.read("outputs")["output_id"].to_pylist()
    assert ids == expected.read("outputs")["output_id"].to_pylist()
