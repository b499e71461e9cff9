"""Backends on this machine: CTranslate2 gives the model's own completions, and promises little."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from loop_runs import new_project, trained
from tiny_model import write_tiny_model

from align.backends import Backend, Job, Made, Unfit, Wanted, backend_named
from align.backends.conversion import converted
from align.backends.ctranslate2_cpu import CTranslate2
from align.backends.tokens import prompt_tokens, reader, reader_of
from align.backends.transformers_loop import Transformers
from align.cache import RoomyLayer, roomy_cache
from align.completions import sampling_text
from align.generate import generate
from align.model import load_model
from align.model_ref import ModelRef, resolve_model
from align.prompts import PromptSource, read_prompts
from align.sampling import Sampling
from annotate.errors import InputError, TrainingError
from annotate.records import text_message
from annotate.runs import Project

SHORT = Sampling(max_new_tokens=20)
ASKED = {
    "p1": [text_message("user", "Where is my parcel?")],
    "p2": [text_message("user", "No.")],
    "p3": [text_message("system", "Be brief."), text_message("user", "Cancel it, please.")],
    "p4": [text_message("user", "long " * 60)],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return new_project(tmp_path_factory.mktemp("backends"))


@pytest.fixture(scope="module")
def tiny(project: Project, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    folder = write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return resolve_model(project, str(folder))


@pytest.fixture(scope="module")
def engine(project: Project) -> CTranslate2:
    return CTranslate2(project.state_dir / "ctranslate2")


def completed(
    backend: Backend,
    ref: ModelRef,
    prompts: Sequence[str] = ("p1", "p2", "p3"),
    *,
    n: int = 4,
    rules: Sampling = SHORT,
    batch_size: int = 128,
) -> dict[tuple[str, int], Made]:
    wanted = [Wanted(one, one, sample) for one in prompts for sample in range(n)]
    job = Job(ref, wanted, ASKED, rules, batch_size)
    made = [one for batch in backend.complete(job) for one in batch]
    assert all(isinstance(one, Made) for one in made)
    return {(m.wanted.prompt_id, m.wanted.sample): m for m in made if isinstance(m, Made)}


def test_greedy_completions_are_those_of_transformers(tiny: ModelRef, engine: CTranslate2) -> None:
    greedy = Sampling(temperature=0, max_new_tokens=30)
    theirs = completed(Transformers(), tiny, n=1, rules=greedy)
    for key, one in completed(engine, tiny, n=1, rules=greedy).items():
        assert one.completion == theirs[key].completion
        assert one.tokens == theirs[key].tokens
        assert one.logprob == pytest.approx(theirs[key].logprob, abs=1e-3)


def test_what_is_drawn_has_the_models_own_probability(tiny: ModelRef, engine: CTranslate2) -> None:
    loaded = load_model(tiny)
    read = reader(loaded)
    for one in completed(engine, tiny, rules=Sampling(temperature=0.7, max_new_tokens=12)).values():
        (prompt,) = prompt_tokens(read, [ASKED[one.wanted.prompt_id]])
        said = read.tokenizer(one.completion, add_special_tokens=False)["input_ids"]
        if len(said) != one.tokens:
            continue  # a text may have been cut within a letter
        ended = [read.tokenizer.eos_token_id] if one.tokens < 12 else []
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([prompt + said + ended])).logits[0]
        each = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        whole = each.gather(1, torch.tensor(said + ended)[:, None]).sum().item()
        assert one.logprob == pytest.approx(whole, abs=1e-3)


def test_samples_follow_the_distribution(tiny: ModelRef, engine: CTranslate2) -> None:
    """The first token's frequencies against its probabilities, by a chi-squared statistic."""
    rules = Sampling(max_new_tokens=1, seed=3)
    made = completed(engine, tiny, ("p1",), n=2000, rules=rules, batch_size=500)
    logprobs = np.array([one.logprob for one in made.values()])
    # A token of probability p is expected 2000 p times; those under 10 are counted together.
    values, counts = np.unique(np.round(logprobs, 4), return_counts=True)
    expected = 2000 * np.exp(values)
    often = expected >= 10
    statistic = ((counts[often] - expected[often]) ** 2 / expected[often]).sum()
    assert often.sum() >= 5
    # Mean k, standard deviation sqrt(2 k): five of these are never passed by chance.
    assert statistic < often.sum() + 5 * np.sqrt(2 * often.sum())


def test_the_same_command_draws_the_same(tiny: ModelRef, engine: CTranslate2) -> None:
    once = completed(engine, tiny, batch_size=5)
    assert completed(engine, tiny, batch_size=5) == once
    assert completed(engine, tiny, rules=Sampling(max_new_tokens=20, seed=1), batch_size=5) != once
    # No two completions of a prompt are alike by sharing their numbers.
    assert len({one.completion for one in once.values()}) == 12
    # By itself, as it is unless a batch size is named, a completion depends on nothing else.
    assert engine.batch_size == 1
    alone = completed(engine, tiny, n=2, batch_size=1)
    fewer = completed(engine, tiny, ("p3", "p1"), n=1, batch_size=1)
    assert all(alone[key] == one for key, one in fewer.items())


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    tiny: ModelRef, engine: CTranslate2
) -> None:
    whole = completed(engine, tiny, batch_size=5)
    # In the order in which they came: a batch of five, and what an interruption left to do.
    done, rest = list(whole.values())[:5], list(whole.values())[5:]
    job = Job(tiny, [one.wanted for one in rest], ASKED, SHORT, 5)
    assert [one for batch in engine.complete(job) for one in batch] == rest
    assert len(done) == 5


def test_batches_side_by_side_leave_the_threads_as_they_were(tiny: ModelRef) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        side_by_side = completed(Transformers(), tiny, batch_size=2)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        one_by_one = completed(Transformers(), tiny, batch_size=2)
    finally:
        torch.set_num_threads(before)
    assert {key: one.completion for key, one in side_by_side.items()} == {
        key: one.completion for key, one in one_by_one.items()
    }


def test_a_prompt_that_does_not_fit_is_told_by_each(tiny: ModelRef, engine: CTranslate2) -> None:
    for backend in (engine, Transformers()):
        job = Job(tiny, [Wanted("p4", "p4", 0)], ASKED, SHORT, 8)
        (batch,) = [batch for batch in backend.complete(job) if batch]
        (unfit,) = batch
        assert isinstance(unfit, Unfit)
        assert "the model has 256" in unfit.reason


def test_a_model_is_converted_once(project: Project, tiny: ModelRef, engine: CTranslate2) -> None:
    folder = converted(reader_of(tiny), engine.cache)
    before = (folder / "model.bin").stat().st_mtime_ns
    assert converted(reader_of(tiny), engine.cache) == folder
    assert (folder / "model.bin").stat().st_mtime_ns == before
    assert [path.name for path in engine.cache.iterdir()] == [folder.name]


def test_a_model_without_pad_and_unknown_token_is_converted(
    project: Project, engine: CTranslate2, tmp_path: Path
) -> None:
    """As Llama 3: it gets a pad token when it is loaded, and its table a row that no file has."""
    folder = write_tiny_model(tmp_path / "padless")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        path.write_text(path.read_text().replace("<|pad|>", "<|begin|>"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ref = resolve_model(project, str(folder))
    own = load_model(ref).model.get_input_embeddings().weight
    assert own.shape[0] == json.loads((folder / "config.json").read_text())["vocab_size"] + 1
    assert completed(engine, ref)


def test_a_conversion_that_changes_the_model_is_refused(
    project: Project, engine: CTranslate2, tmp_path: Path
) -> None:
    folder = write_tiny_model(tmp_path / "odd")
    # Another activation, which the converter of this class of models passes over.
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"hidden_act": "relu"}))
    ref = resolve_model(project, str(folder))
    with pytest.raises(TrainingError, match=r"odd: .*another model.*--backend transformers"):
        completed(engine, ref)


def test_a_model_that_cannot_be_converted_says_so(
    project: Project, engine: CTranslate2, tmp_path: Path
) -> None:
    folder = write_tiny_model(tmp_path / "strange")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "olmo2"}
    (folder / "config.json").write_text(json.dumps(settings))
    ref = resolve_model(project, str(folder))
    with pytest.raises(TrainingError, match="cannot convert it: No conversion is registered"):
        completed(engine, ref)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "adapter_config.json").write_text("{}")


def test_a_run_by_another_backend_is_another_run(
    project: Project, tiny: ModelRef, engine: CTranslate2
) -> None:
    source: PromptSource = read_prompts(project, "support-desk", split="train", count=3)
    plain = generate(project, [tiny.source], source, sampling=SHORT)
    run = generate(project, [tiny.source], source, sampling=SHORT, backend=engine, batch_size=4)
    assert run.id != plain.id
    assert run.manifest["settings"]["backend"] == run.metrics["backend"] == "ctranslate2"
    assert run.manifest["settings"]["batch_size"] == 4
    assert plain.metrics["backend"] == "transformers"
    assert "backend" not in plain.manifest["settings"]
    assert run.read("outputs")["sampling"][0].as_py() == sampling_text(SHORT, 0, "ctranslate2")
    assert "ctranslate2" in run.manifest["versions"]


def test_a_missing_package_is_one_clear_line(
    project: Project, tiny: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None in sys.modules is how Python says that a module cannot be imported.
    for name in ("vllm", "ctranslate2"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=r"not installed.*install"):
            completed(backend_named(name, project), tiny)


def test_a_checkpoint_is_named_by_its_run(project: Project) -> None:
    run = trained(project, "base", 2, (), seed=1)
    for name in (f"{run.id}/model", str(run.path / "model")):
        ref = resolve_model(project, name)
        assert ref.name == f"{run.id}/model"
        assert ref.run == run
    made = generate(
        project,
        [run.id, f"{run.id}/model"],
        read_prompts(project, "support-desk", split="train", count=2),
        sampling=SHORT,
    )
    assert made.metrics["models"].keys() == {run.id, f"{run.id}/model"}
    assert [parent.id for parent in made.parents] == [run.id, run.id]


def test_room_for_keys_grows_and_shrinks(tiny: ModelRef) -> None:
    layer = RoomyLayer()
    rows = torch.arange(2 * 3 * 200 * 4, dtype=torch.float32).reshape(2, 3, 200, 4)
    for at in range(0, 200, 8):
        keys, values = layer.update(rows[:, :, at : at + 8], -rows[:, :, at : at + 8])
        assert torch.equal(keys, rows[:, :, : at + 8])
        assert torch.equal(values, -rows[:, :, : at + 8])
    layer.batch_select_indices(torch.tensor([1, 1, 0]))
    keys, values = layer.update(rows[[1, 1, 0], :, :1], rows[[1, 1, 0], :, :1])
    assert layer.get_seq_length() == 201
    assert torch.equal(keys[:, :, :200], rows[[1, 1, 0]])
    assert torch.equal(values[:, :, 200], rows[[1, 1, 0], :, 0])


def test_layers_that_forget_keep_their_own_cache(tiny: ModelRef) -> None:
    model = load_model(tiny).model
    assert roomy_cache(model) is not None
    model.config.layer_types = ["sliding_attention", "full_attention"]
    model.config.sliding_window = 8
    assert roomy_cache(model) is None
