"""Supervised fine-tuning: where the loss is, what shares a row, and which models it can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loop_runs import new_project
from safetensors.torch import load_file
from tiny_kinds import write_tiny_bert, write_tiny_t5
from tiny_model import write_tiny_model

from align.chat_template import check_template
from align.model import load_model
from align.model_ref import resolve_model
from align.train import train
from align.train_sft import require_marks
from annotate.errors import InputError, TrainingError
from annotate.records import table_from_rows, text_message
from annotate.runs import Project, Run, RunPlan

RECIPE = """
method: sft
model: {model}
max_length: {length}
trainer: {{num_train_epochs: 3, per_device_train_batch_size: 8, learning_rate: 5.0e-3{more}}}
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


def built(project: Project, n: int = 40, *, turns: int = 1, words: int = 1) -> Run:
    """A build run of conversations of so many questions, each answered with "yes, gladly"."""
    rows = []
    for number in range(n):
        prompt = []
        for turn in range(turns):
            prompt.append(text_message("user", f"may I ask {turn} of {number}?" * words))
            prompt.append(text_message("assistant", "yes, gladly"))
        rows.append(
            {
                "row_id": f"s-{number}",
                "prompt_id": f"p-{number}",
                "prompt": prompt[:-1],
                "completion": prompt[-1:],
                "source": "demonstration",
                "split": "eval" if number % 5 == 4 else "train",
            }
        )
    with project.draft(RunPlan("build", 1, settings={"n": n, "turns": turns, "w": words})) as draft:
        draft.write("sft", table_from_rows("sft", rows))
    return draft.run


def recipe(project: Project, model: Path | str, more: str = "", extra: str = "", **of: Any) -> Path:
    path = project.root / "r.yaml"
    length = of.get("length", 128)
    path.write_text(RECIPE.format(model=model, length=length, more=more) + extra)
    return path


def losses(run: Run) -> list[float]:
    entries = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    return [entry["eval_loss"] for entry in entries if "eval_loss" in entry]


def marked(folder: Path) -> Path:
    """The tiny model with generation marks in its template."""
    write_tiny_model(folder)
    (folder / "chat_template.jinja").write_text(
        "{% for turn in messages %}<|{{ turn['role'] }}|>{% if turn['role'] == 'assistant' %}"
        "{% generation %}{{ turn['content'] }}<|end|>{% endgeneration %}"
        "{% else %}{{ turn['content'] }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return folder


def learnt(project: Project, model: Path, more: str) -> list[str]:
    """The words that the first row's loss is on, as TRL's trainer is given them."""
    from transformers import AutoTokenizer
    from trl import SFTTrainer

    seen: list[Any] = []
    original = SFTTrainer.train

    def look(self: Any, *args: Any, **named: Any) -> Any:
        seen.append(self.train_dataset[0])
        return original(self, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SFTTrainer, "train", look)
        train(project, recipe(project, model, f"{more}, max_steps: 1"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    said = tokenizer.decode([token for token in seen[0]["labels"] if token != -100])
    return [part for part in said.split("<|end|>") if part]


def test_the_loss_is_on_the_last_answer_or_on_all_of_them(project: Project, tmp_path: Path) -> None:
    built(project, turns=3)
    model = marked(tmp_path / "marked")
    assert learnt(project, model, "") == ["yes, gladly"]
    assert learnt(project, model, ", assistant_only_loss: true") == ["yes, gladly"] * 3


def test_marks_are_asked_for_where_the_loss_needs_them(
    project: Project, tiny: Path, tmp_path: Path
) -> None:
    built(project, turns=2)
    with pytest.raises(TrainingError, match="does not mark what the assistant says") as caught:
        train(project, recipe(project, tiny, ", assistant_only_loss: true"))
    assert "{% generation %}" in caught.value.remedy
    assert "\n" not in str(caught.value)
    assert project.unfinished() == []
    require_marks(load_model(resolve_model(project, str(marked(tmp_path / "marked")))))


def test_packed_rows_learn_the_same_in_fewer_steps(project: Project, tiny: Path) -> None:
    built(project)
    # 32 rows of about 40 tokens, eight a batch; packed, three share a row of 128.
    plain = train(project, recipe(project, tiny))
    pack = ", packing: true, gradient_accumulation_steps: 1"
    packed = train(project, recipe(project, tiny, pack))
    assert packed.metrics["steps"] < plain.metrics["steps"] == 3 * 32 / 8
    assert losses(packed)[-1] < losses(packed)[0] - 0.2


def test_packing_that_mixes_dialogues_is_refused(project: Project, tiny: Path) -> None:
    path = recipe(project, tiny, ", packing: true, packing_strategy: wrapped")
    with pytest.raises(InputError, match="look at the one before") as caught:
        train(project, path)
    assert caught.value.where.endswith("r.yaml:5")
    assert "bfd" in caught.value.remedy


def test_rows_without_room_are_counted_and_none_left_is_refused(
    project: Project, tiny: Path
) -> None:
    built(project, words=20)
    with pytest.raises(InputError, match="all 32 rows to train on are longer than max_length"):
        train(project, recipe(project, tiny, length=64))
    assert project.unfinished() == []


def test_a_template_that_never_ends_is_one_clear_line(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.chat_template.SECONDS", 0.3)
    built(project)
    model = write_tiny_model(tmp_path / "hostile")
    (model / "chat_template.jinja").write_text(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    with pytest.raises(TrainingError, match="did not end within"):
        train(project, recipe(project, model))
    assert project.unfinished() == []


@pytest.mark.slow
def test_an_output_layer_of_its_own_learns_new_tokens_beside_adapters(
    project: Project, tiny: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    built(project)
    model = write_tiny_model(tmp_path / "untied")
    config = AutoConfig.from_pretrained(tiny)
    config.tie_word_embeddings = False
    start = AutoModelForCausalLM.from_config(config)
    start.save_pretrained(model)
    extra = "lora: {r: 4, alpha: 8}\nnew_special_tokens: ['<|tool|>']\n"
    run = train(project, recipe(project, model, extra=extra))
    made = load_model(resolve_model(project, run.id)).model
    for before, after in (
        (start.get_input_embeddings(), made.get_input_embeddings()),
        (start.get_output_embeddings(), made.get_output_embeddings()),
    ):
        rows = before.weight.shape[0]
        assert after.weight.shape[0] == rows + 1
        moved = (after.weight[:rows] - before.weight).abs().sum(dim=1)
        # Every answer has a y, and it ends.
        assert moved[1] > 0.01
    assert made.get_output_embeddings().weight is not made.get_input_embeddings().weight


@pytest.mark.parametrize("extra", ["", "lora: {r: 4, alpha: 8}\n"])
def test_a_model_without_a_chat_template_is_given_one(
    project: Project, tmp_path: Path, extra: str
) -> None:
    built(project)
    model = write_tiny_model(tmp_path / "base", chats=False)
    with pytest.raises(TrainingError, match=r"no chat template.*`chat_template: turns`"):
        train(project, recipe(project, model, extra=extra))
    run = train(project, recipe(project, model, extra=f"{extra}chat_template: turns\n"))
    assert losses(run)[-1] < losses(run)[0] - 0.5
    made = load_model(resolve_model(project, run.id))
    ids = made.tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
    before = load_file(model / "model.safetensors")["model.embed_tokens.weight"]
    learnt = made.model.get_input_embeddings().weight[ids]
    assert min(ids) >= len(before)
    # They began as the mean of the others.
    assert (learnt - before.mean(dim=0)).abs().max() > 0.01
    # Its own from now on, whatever is done with it.
    check = check_template(made)
    assert (check.begins_alike, check.ends, check.marks, check.forgeable) == (
        True,
        True,
        True,
        False,
    )


def test_a_chat_template_of_ones_own_takes_the_place_of_the_models(
    project: Project, tiny: Path
) -> None:
    built(project)
    own = project.root / "own.jinja"
    own.write_text(
        "{% for turn in messages %}<|user|>{{ turn['role'] }}: {{ turn['content'] }}<|end|>"
        "{% endfor %}{% if add_generation_prompt %}<|user|>assistant: {% endif %}"
    )
    path = recipe(project, tiny, extra="chat_template: own.jinja\n")
    run = train(project, path)
    assert load_model(resolve_model(project, run.id)).tokenizer.chat_template == own.read_text()
    assert train(project, path).id == run.id
    own.write_text(own.read_text().replace(": ", "> "))
    assert train(project, path).id != run.id
    own.unlink()
    with pytest.raises(InputError, match=r"own\.jinja: chat_template: no file with a template"):
        train(project, path)


def test_an_encoder_decoder_learns_to_answer(project: Project, tmp_path: Path) -> None:
    built(project)
    model = write_tiny_t5(tmp_path / "t5")
    extra = "new_special_tokens: ['<|tool|>']\n"
    run = train(project, recipe(project, model, extra=extra))
    assert losses(run)[-1] < losses(run)[0] - 0.5
    assert run.metrics["makes"] == "encoder-decoder"
    made = load_model(resolve_model(project, run.id), task="seq2seq-lm")
    assert made.tokenizer.convert_tokens_to_ids("<|tool|>") < made.model.config.vocab_size
    # It writes what it was shown, from the prompt alone.
    import torch

    from align.conversations import conversation_tokens

    (ids,) = conversation_tokens(made, [[text_message("user", "may I ask 0 of 7?")]], asks=True)
    prompt = torch.tensor([[*ids, made.tokenizer.eos_token_id]])
    out = made.model.generate(prompt, max_new_tokens=4, do_sample=False)
    assert made.tokenizer.decode(out[0], skip_special_tokens=True).startswith("y")


def test_an_encoder_decoder_has_max_length_for_prompt_and_completion_each(
    project: Project, tmp_path: Path
) -> None:
    """A prompt has up to 38 tokens and the answer 12 with its end: only together more than 40."""
    built(project, n=10)
    model = write_tiny_t5(tmp_path / "t5")
    run = train(project, recipe(project, model, ", max_steps: 1", length=40))
    assert (run.metrics["too_long"], run.metrics["cut"]) == (0, 0)


def test_adapters_on_an_encoder_decoder(project: Project, tmp_path: Path) -> None:
    built(project)
    model = write_tiny_t5(tmp_path / "t5")
    run = train(project, recipe(project, model, extra="lora: {r: 4, alpha: 8}\n"))
    assert losses(run)[-1] < losses(run)[0]
    assert (run.path / "adapter" / "adapter_model.safetensors").is_file()
    assert (run.path / "model" / "model.safetensors").is_file()


def test_no_prefix_on_an_encoder_decoder(project: Project, tmp_path: Path) -> None:
    built(project)
    path = recipe(project, write_tiny_t5(tmp_path / "t5"), extra="prefix: {tokens: 2}\n")
    with pytest.raises(TrainingError, match="cannot be given a prefix"):
        train(project, path)


def test_an_encoder_decoder_takes_no_argument_of_a_decoders_trainer(
    project: Project, tmp_path: Path
) -> None:
    built(project)
    path = recipe(project, write_tiny_t5(tmp_path / "t5"), ", packing: true")
    with pytest.raises(InputError, match="packing is for decoders"):
        train(project, path)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_model_of_the_wrong_kind_is_refused_before_anything_starts(
    project: Project, tmp_path: Path, method: str
) -> None:
    built(project)
    write = write_tiny_bert if method == "sft" else write_tiny_t5
    path = recipe(project, write(tmp_path / "wrong"))
    path.write_text(path.read_text().replace("method: sft", f"method: {method}"))
    kind = "an encoder" if method == "sft" else "an encoder-decoder"
    with pytest.raises(TrainingError, match=f"it is {kind}, and this needs") as caught:
        train(project, path)
    assert "\n" not in str(caught.value)
    assert project.unfinished() == []
    assert [run.step for run in project.all_runs()] == ["build"]
