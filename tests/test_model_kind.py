"""Decoders, encoders and both: told apart before loading, and each used for what it can do."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from loop_runs import new_project
from preference_runs import NO, YES, built
from tiny_kinds import write_tiny_bert, write_tiny_t5
from tiny_model import write_tiny_model

from align.backends.tokens import reader_of
from align.chat_template import check_template
from align.model import PLAIN_TEMPLATE, Task, load_model
from align.model_kind import _OneLine, model_kind, require_kind
from align.model_ref import BASE, ModelRef, resolve_model
from align.reward_scores import load_reward_model, reward_scores
from align.train import train
from annotate.errors import TrainingError
from annotate.records import text_message

REWARD = """
method: reward
model: {model}
max_length: 128
trainer: {{num_train_epochs: 6, per_device_train_batch_size: 4, learning_rate: 5.0e-3}}
"""


def test_a_configuration_tells_the_kind(tmp_path: Path) -> None:
    assert model_kind(str(BASE)) == "decoder"
    assert model_kind(str(write_tiny_model(tmp_path / "llama"))) == "decoder"
    assert model_kind(str(write_tiny_t5(tmp_path / "t5"))) == "encoder-decoder"
    assert model_kind(str(write_tiny_bert(tmp_path / "bert"))) == "encoder"
    assert model_kind(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("kind", "task", "said"),
    [
        ("encoder", "causal-lm", "it is an encoder, and this needs a decoder"),
        ("encoder-decoder", "reward", "an encoder-decoder, and this needs a decoder or an encoder"),
        ("decoder", "seq2seq-lm", "it is a decoder, and this needs an encoder-decoder"),
    ],
)
def test_what_a_kind_cannot_do_is_said(kind: str, task: Task, said: str) -> None:
    with pytest.raises(TrainingError, match=said) as caught:
        require_kind("m", kind, task)  # type: ignore[arg-type]
    assert caught.value.where == "m"
    require_kind("m", None, task)


def test_nothing_but_a_decoder_completes_prompts(tmp_path: Path) -> None:
    for write in (write_tiny_t5, write_tiny_bert):
        ref = ModelRef("m", str(write(tmp_path / write.__name__)))
        for wanted in (load_model, reader_of):
            with pytest.raises(TrainingError, match="this needs a decoder"):
                wanted(ref)


def test_a_tokenizer_without_an_end_is_one_clear_line(tmp_path: Path) -> None:
    settings = write_tiny_model(tmp_path / "tiny") / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    del content["eos_token"]
    settings.write_text(json.dumps(content))
    with pytest.raises(TrainingError, match="its tokenizer has no end token") as caught:
        load_model(ModelRef("tiny", str(settings.parent)))
    assert "eos_token" in caught.value.remedy


def test_a_template_and_an_end_where_there_is_none(tmp_path: Path) -> None:
    found = load_model(ModelRef("t5", str(write_tiny_t5(tmp_path / "t5"))), task="seq2seq-lm")
    assert found.tokenizer.chat_template == PLAIN_TEMPLATE
    assert check_template(found).begins_alike
    encoder = load_model(ModelRef("bert", str(write_tiny_bert(tmp_path / "bert"))), task="reward")
    assert encoder.tokenizer.chat_template == PLAIN_TEMPLATE
    assert encoder.tokenizer.eos_token == encoder.tokenizer.sep_token == "<|end|>"


def test_an_encoder_learns_what_people_prefer(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    built(project)
    path = project.root / "reward.yaml"
    path.write_text(REWARD.format(model=write_tiny_bert(tmp_path / "bert")))
    run = train(project, path)
    assert run.metrics["eval_accuracy"] == 1.0
    loaded = load_reward_model(resolve_model(project, run.id))
    asked = [text_message("user", "may I ask number 99?")]
    said = [[*asked, text_message("assistant", text)] for text in (YES, NO)]
    good, bad = reward_scores(loaded, said)
    assert good > bad


def test_the_hub_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_OneLine, "said", False)

    def unreachable(*_: object, **__: object) -> None:
        attempts = logging.getLogger("huggingface_hub.utils._http")
        for seconds in (1, 2, 4):
            attempts.warning("'Name or service not known' thrown while requesting HEAD")
            attempts.warning("Retrying in %ss", seconds)
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", unreachable)
    with pytest.raises(TrainingError, match="the hub cannot be reached") as caught:
        model_kind("some-team/some-model")
    assert caught.value.where == "some-team/some-model"
    assert capfd.readouterr().err == "the hub does not answer; trying again …\n"
