"""The small base model: the shipped one is what its recipe makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loop_runs import new_project
from transformers import Trainer

from align.model import Loaded, load_model
from align.model_ref import BASE, MODEL_FOLDER, resolve_model
from align.pretrain import dialogue_texts, perplexity
from align.recipe import SHIPPED, PretrainRecipe, load_recipe
from align.tokenizer import SPECIAL, make_tokenizer
from align.train import train
from annotate.errors import InputError, Interrupted
from annotate.runs import Project, Run

PERPLEXITY = 1.524
"""Of the shipped model, a token of the held-out dialogues."""

MICRO = """
method: pretrain
demonstrations: {source: support-desk, n: 64, quality: [0.8, 1.2]}
vocab_size: 400
architecture: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}
max_length: 64
trainer: {num_train_epochs: 2, per_device_train_batch_size: 16, learning_rate: 1.0e-2}
"""


@pytest.fixture(scope="module")
def recipe() -> PretrainRecipe:
    read = load_recipe(SHIPPED / "pretrain-support-desk.yaml")
    assert isinstance(read, PretrainRecipe)
    return read


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    project = new_project(tmp_path_factory.mktemp("project"))
    return load_model(resolve_model(project, "base"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


def test_the_shipped_weights_have_the_recorded_perplexity(
    shipped: Loaded, recipe: PretrainRecipe
) -> None:
    measured = perplexity(shipped.model, shipped.tokenizer, recipe).perplexity()
    assert measured.n == 300
    assert measured.value == pytest.approx(PERPLEXITY, abs=1e-3)
    assert measured.low < measured.value < measured.high
    assert f"{measured.value:.3f}" in (BASE / "README.md").read_text(encoding="utf-8")


def test_the_recipe_makes_the_shipped_tokenizer(recipe: PretrainRecipe) -> None:
    turns = (turn for texts in dialogue_texts(recipe) for turn in texts)
    made = make_tokenizer(turns, recipe.vocab_size)
    shipped = json.loads((BASE / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads(made.backend_tokenizer.to_str()) == shipped
    assert made.chat_template == (BASE / "chat_template.jinja").read_text(encoding="utf-8")


def test_the_shipped_model_has_the_recipes_form(shipped: Loaded, recipe: PretrainRecipe) -> None:
    config = shipped.model.config
    assert config.vocab_size == len(shipped.tokenizer) == recipe.vocab_size
    for name, size in recipe.architecture.model_dump().items():
        assert getattr(config, name) == size
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 5_000_000


def test_special_tokens_come_first_and_pad_is_not_the_end(shipped: Loaded) -> None:
    tokenizer = shipped.tokenizer
    assert tokenizer.convert_ids_to_tokens(range(len(SPECIAL))) == list(SPECIAL)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_any_text_survives_the_tokenizer(shipped: Loaded) -> None:
    text = "Grüße, 東京! \n\t  two  spaces, 0 and 🧵"
    ids = shipped.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert shipped.tokenizer.decode(ids) == text


def test_the_template_marks_what_the_assistant_says_with_its_end(shipped: Loaded) -> None:
    turns = [
        {"role": "user", "content": "My lamp flickers."},
        {"role": "assistant", "content": "Which one?"},
        {"role": "user", "content": "The Wick lamp."},
        {"role": "assistant", "content": "Check the plug."},
    ]
    made = shipped.tokenizer.apply_chat_template(
        turns, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = zip(made["input_ids"], made["assistant_masks"], strict=True)
    said = shipped.tokenizer.decode([token for token, mask in marked if mask])
    assert said == "Which one?<|eos|>Check the plug.<|eos|>"


def test_a_prompt_is_the_beginning_of_its_dialogue(shipped: Loaded) -> None:
    """What a prompt and completion trainer relies on to find where the completion begins."""
    user = [{"role": "user", "content": "My lamp flickers."}]
    answer = [{"role": "assistant", "content": "Check the plug."}]
    prompt = shipped.tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
    whole = shipped.tokenizer.apply_chat_template(user + answer, tokenize=False)
    assert whole.startswith(prompt)
    assert whole == f"{prompt}Check the plug.<|eos|>"


def test_pre_training_learns_records_and_is_done_once(project: Project) -> None:
    path = project.root / "micro.yaml"
    path.write_text(MICRO)
    run = train(project, path)
    assert run.round == 0
    assert run.parents == []
    assert run.metrics["method"] == "pretrain"
    assert run.metrics["steps"] == 2 * 64 / 16
    log = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert losses[1] < losses[0]
    assert 1 < run.metrics["perplexity"]["value"] < 400
    made = load_model(resolve_model(project, run.id))
    assert made.ref.source == str(run.path / MODEL_FOLDER)
    assert train(project, path).id == run.id
    with pytest.raises(InputError, match="neither --data nor --model"):
        train(project, path, model="base")


STREAMED = """
method: pretrain
corpus: {{source: {source}, path: corpus, held_out: 0.2, held_out_documents: 20, shuffle: 30}}
tokenizer: {tokenizer}
vocab_size: 400
packing: {packing}
architecture: {{hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}}
max_length: 64
trainer: {{max_steps: 12, per_device_train_batch_size: 8, learning_rate: 1.0e-2, logging_steps: 1}}
"""


def corpus_of(project: Project, source: str) -> None:
    """Two files of made-up documents."""
    texts = [f"The lamp number {n} flickers. Does the {n % 9}th switch work?" for n in range(150)]
    folder = project.root / "corpus"
    folder.mkdir(exist_ok=True)
    for number, part in enumerate((texts[:100], texts[100:])):
        if source == "parquet":
            pq.write_table(pa.table({"text": part}), folder / f"{number}.parquet")
        elif source == "jsonl":
            lines = "".join(json.dumps({"text": text}) + "\n" for text in part)
            (folder / f"{number}.jsonl").write_text(lines)
        else:
            (folder / f"{number}.txt").write_text("\n".join(part))


def streamed(project: Project, **of: str) -> Path:
    chosen = {"source": "text", "tokenizer": "bpe", "packing": "true"} | of
    path = project.root / "streamed.yaml"
    path.write_text(STREAMED.format(**chosen))
    return path


def log_of(run: Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("source", "tokenizer", "packing"),
    [
        ("text", "bpe", "true"),
        ("jsonl", "unigram", "false"),
        pytest.param("parquet", "unigram", "true", marks=pytest.mark.slow),
    ],
)
def test_a_streamed_corpus_is_learnt(
    project: Project, source: str, tokenizer: str, packing: str
) -> None:
    corpus_of(project, source)
    run = train(project, streamed(project, source=source, tokenizer=tokenizer, packing=packing))
    losses = [entry["eval_loss"] for entry in log_of(run) if "eval_loss" in entry]
    assert losses[-1] < losses[0] - 0.3
    perplexity, bits = run.metrics["perplexity"], run.metrics["bits_per_byte"]
    assert perplexity["n"] == bits["n"] == 20
    assert perplexity["low"] < perplexity["value"] < perplexity["high"] < 400
    # Eight bits a byte is what no model at all needs.
    assert 0 < bits["value"] < 8
    assert run.metrics["held_out_tokens"] > 20 * 5
    assert len(run.manifest["inputs"]) == 2
    assert load_model(resolve_model(project, run.id)).tokenizer.eos_token == "<|eos|>"


def test_a_stream_interrupted_goes_on_with_the_same_documents(project: Project) -> None:
    corpus_of(project, "text")
    unbroken = train(project, streamed(project))
    other = new_project(project.root / "other")
    corpus_of(other, "text")
    interrupted(other, streamed(other))
    resumed = train(other, streamed(other))
    assert resumed.id == unbroken.id
    for one, two in zip(log_of(resumed), log_of(unbroken), strict=True):
        assert one["step"] == two["step"]
        assert one.get("loss") == pytest.approx(two.get("loss"), abs=1e-6)
    assert resumed.metrics["perplexity"] == pytest.approx(unbroken.metrics["perplexity"])


def test_a_tokenizer_that_no_second_try_would_give_is_kept(project: Project) -> None:
    corpus_of(project, "text")
    path = streamed(project, tokenizer="unigram")
    interrupted(project, path)
    (kept,) = project.runs_dir.glob(".*.partial/checkpoints/tokenizer/tokenizer.json")
    made = json.loads(kept.read_text())
    run = train(project, path)
    assert json.loads((run.path / "model" / "tokenizer.json").read_text()) == made
    assert not (run.path / "checkpoints").exists()


def interrupted(project: Project, path: Path) -> None:
    """Train until the first checkpoint after step 8, then stop as Ctrl-C does."""
    save = Trainer._save_checkpoint

    def saved(self: Any, *args: Any, **named: Any) -> None:
        save(self, *args, **named)
        if self.state.global_step > 8:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", saved)
        with pytest.raises(Interrupted):
            train(project, path)


@pytest.mark.slow
def test_two_processes_share_a_stream(project: Project) -> None:
    """Each reads the whole of it and takes its four rows of every eight."""
    runs = []
    for number in ("1", "2"):
        each = new_project(project.root / number)
        corpus_of(each, "text")
        path = streamed(each)
        rows = path.read_text().replace("per_device_train_batch_size: 8, ", "")
        path.write_text(rows + "batch_size: 8\n")
        if number == "1":
            runs.append(train(each, path))
            continue
        command = [sys.executable, "-m", "align", "train", str(path), "--launch", number]
        ended = subprocess.run(command, cwd=each.root, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        runs += each.all_runs()
    one, two = (log_of(run) for run in runs)
    for alone, together in zip(one, two, strict=True):
        assert alone["step"] == together["step"]
        assert alone.get("loss") == pytest.approx(together.get("loss"), abs=1e-4)
    assert runs[0].metrics["perplexity"]["value"] == pytest.approx(
        runs[1].metrics["perplexity"]["value"], rel=1e-4
    )


def test_weights_decay_but_norms_and_biases_do_not(project: Project) -> None:
    corpus_of(project, "text")
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        original = Trainer.create_optimizer

        def look(self: Any, *args: Any, **named: Any) -> Any:
            made = original(self, *args, **named)
            seen.append((self.model, self.optimizer))
            return made

        patch.setattr(Trainer, "create_optimizer", look)
        path = streamed(project)
        path.write_text(
            path.read_text().replace("max_steps: 12", "max_steps: 1, weight_decay: 0.1")
        )
        train(project, path)
    model, optimizer = seen[0]
    names = {id(weight): name for name, weight in model.named_parameters()}
    decay = {
        names[id(weight)]: group["weight_decay"]
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert len(decay) == len(names)
    assert {name for name, share in decay.items() if share == 0} == {
        name for name in decay if "norm" in name or name.endswith("bias")
    }
    assert {share for share in decay.values() if share} == {0.1}


@pytest.mark.slow
def test_packed_dialogues_take_fewer_steps(project: Project) -> None:
    path = project.root / "micro.yaml"
    path.write_text(MICRO.replace("max_length: 64", "max_length: 256\npacking: true"))
    run = train(project, path)
    assert run.metrics["steps"] < 2 * 64 / 16
    assert run.metrics["perplexity"]["n"] == 300


@pytest.mark.parametrize(
    ("texts", "what"),
    [([], "neither a file nor a folder"), ([" ", ""], "no document to train on")],
)
def test_a_corpus_without_text_is_one_clear_line(
    project: Project, texts: list[str], what: str
) -> None:
    (project.root / "corpus").mkdir()
    for number, text in enumerate(texts):
        (project.root / "corpus" / f"{number}.txt").write_text(text)
    with pytest.raises(InputError, match=what):
        train(project, streamed(project))
    assert project.unfinished() == []


def test_a_line_that_is_no_json_ends_it_with_its_place(project: Project) -> None:
    corpus_of(project, "jsonl")
    with (project.root / "corpus" / "1.jsonl").open("a") as file:
        file.write("{oops\n")
    with pytest.raises(InputError, match=r"1\.jsonl:51: not JSON"):
        train(project, streamed(project, source="jsonl"))
    assert project.all_runs() == []


def test_nothing_held_out_is_one_clear_line(project: Project) -> None:
    (project.root / "corpus").mkdir()
    (project.root / "corpus" / "1.txt").write_text("one document alone")
    with pytest.raises(InputError, match="none of its documents is held out"):
        train(project, streamed(project))


@pytest.mark.slow
def test_the_recipe_still_makes_an_equivalent_model(
    project: Project, recipe: PretrainRecipe
) -> None:
    """Four minutes on two idle cores. Weights differ with the processor, what they know hardly."""
    run = train(project, "pretrain-support-desk")
    made = load_model(resolve_model(project, run.id))
    measured = perplexity(made.model, made.tokenizer, recipe).perplexity()
    assert measured.value == pytest.approx(PERPLEXITY, abs=0.03)
