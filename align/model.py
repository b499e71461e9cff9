"""Load, adapt and save a model: the only code that trainers share with generation.

A model is named in one of four ways: `base` (the small one shipped here), a train run's id, a
folder, or an id on the Hugging Face hub. Remote code is never run unless a recipe asks for it by
name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from align.adapters import ADAPTER_FOLDER, holds_adapters, quantized_loading, with_adapters
from align.model_kind import model_kind, require_kind
from annotate.errors import ProjectError, TrainingError
from annotate.runs import Project, Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASE = Path(__file__).parent / "base_model"
# In a train run's folder.
MODEL_FOLDER = "model"

MODEL, REWARD_MODEL = "model", "reward-model"
"""What a train run may hold, by its metric `makes`: a model that completes prompts, or one that
scores completions."""

# A run that holds a model.
_RUN = re.compile(r"r\d+-(train|merge)-")

TOKENS_IN_TEXTS = "tokens_in_texts"
"""In a model's configuration: the special tokens that texts may use, those a recipe added."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""The chat template of an encoder or encoder-decoder that has none: a line a turn."""

Task = Literal["causal-lm", "seq2seq-lm", "reward"]
"""What a model is loaded as: the last is a transformer with a head of one score."""


@dataclass(frozen=True)
class ModelRef:
    """Which model is meant, before it is loaded."""

    name: str
    """As the tables call it: a run's id, `base`, a folder's name or a hub id."""
    source: str
    """A folder, or a hub id."""
    run: Run | None = None
    """The run that trained it, if it was trained here."""


@dataclass(frozen=True)
class Loaded:
    """A model and its tokenizer; pad and end differ and stand in its generation settings."""

    ref: ModelRef
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def resolve_model(project: Project, name: str) -> ModelRef:
    """What `name` means in this project.

    Raises:
        ProjectError: it is a run that trained nothing.
        TrainingError: it looks like a folder or a run that does not exist.
    """
    if name == "base":
        return ModelRef("base", str(BASE))
    folder = Path(name).expanduser()
    if not folder.is_dir() and "/" in name:
        folder = project.runs_dir / name
    if folder.is_dir():
        if folder.parent == project.runs_dir and _folder_in(folder) is not None:
            return _of_run(project.resolve(folder.name))
        return _of_folder(project, folder.resolve())
    if _RUN.match(name):
        return _of_run(project.resolve(name))
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise TrainingError("no such folder", where=name, remedy="Name a model's folder or id")
    return ModelRef(name, name)


def model_before(project: Project, round: int) -> ModelRef:
    """What a round starts from: the newest model of an earlier round, else `base`."""
    trained = [run for run in project.all_runs() if completes(run) and run.round < round]
    if not trained:
        return resolve_model(project, "base")
    return _of_run(max(trained, key=lambda run: (run.round, run.manifest["finished"])))


def newest_model(project: Project) -> ModelRef:
    """The model trained last, else `base`."""
    trained = [run for run in project.all_runs() if completes(run)]
    if not trained:
        return resolve_model(project, "base")
    return _of_run(trained[-1])


def completes(run: Run) -> bool:
    """Whether a run holds a model that completes prompts, which a reward model does not, and is no
    trial of a sweep."""
    if run.step not in ("train", "merge") or run.manifest["settings"].get("sweep"):
        return False
    return bool(run.metrics.get("makes", MODEL) == MODEL)


def _of_run(run: Run) -> ModelRef:
    folder = _folder_in(run.path)
    if folder is None:
        raise ProjectError("this run holds no model", where=run.id, remedy="Name a train run")
    return ModelRef(run.id, str(folder), run)


def _of_folder(project: Project, folder: Path) -> ModelRef:
    """A model's folder; within a train run, a checkpoint, called by the run and its place there."""
    runs = project.runs_dir.resolve()
    if runs in folder.parents:
        run_id, *inside = folder.relative_to(runs).parts
        if inside and not run_id.startswith("."):
            return ModelRef("/".join((run_id, *inside)), str(folder), project.resolve(run_id))
    return ModelRef(folder.name, str(folder))


def _folder_in(run: Path) -> Path | None:
    """Where a run's model lies, or its adapters where they stand alone."""
    folders = (run / MODEL_FOLDER, run / ADAPTER_FOLDER)
    return next((folder for folder in folders if folder.is_dir()), None)


def weights(ref: ModelRef) -> tuple[Path, ...]:
    """The files with a local model's weights, by which a run identifies what it started from."""
    folder = Path(ref.source)
    return tuple(sorted(folder.glob("*.safetensors"))) if folder.is_dir() else ()


def load_model(
    ref: ModelRef,
    *,
    task: Task = "causal-lm",
    quantization: Literal["nf4"] | None = None,
    trust_remote_code: bool = False,
    train: Literal["nothing", "adapters", "all"] = "nothing",
) -> Loaded:
    """Load a model and its tokenizer.

    A model that is not trained lies on the accelerator, if there is one; of one that is, the
    trainer decides where. A GPU gets bfloat16, but for weights that are trained themselves: steps
    of a millionth vanish in its 8 bits of precision.

    Raises:
        TrainingError: it does not exist, cannot be reached, is damaged, has no chat template,
            cannot be quantised or trained, or scores completions where one is wanted that writes
            them.
    """
    import torch
    from huggingface_hub import logging as hub_logging
    from safetensors import SafetensorError
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # It tells of every attempt to reach the hub.
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    on_gpu = torch.cuda.is_available()
    half = on_gpu and torch.cuda.is_bf16_supported() and train != "all"
    options = {"dtype": torch.bfloat16 if half else torch.float32}
    if quantization is not None:
        options |= quantized_loading()
    base = base_folder(ref)
    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.source, trust_remote_code=trust_remote_code)
        kind = model_kind(base, trust_remote_code=trust_remote_code)
        require_kind(ref.name, kind, task)
        model = _auto_class(task).from_pretrained(
            base, trust_remote_code=trust_remote_code, **_head(task), **options
        )
        _distinct_pad(tokenizer, model)
        if base != ref.source:
            model = with_adapters(model, tokenizer, Path(ref.source))
    except torch.cuda.OutOfMemoryError:
        raise TrainingError("it does not fit into the GPU's memory", where=ref.name) from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        # The libraries' messages run over many lines; the first says what happened.
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise TrainingError(
            f"the model cannot be loaded: {first}",
            where=ref.name,
            remedy="Name `base`, a train run, a folder with config.json, or an id of the hub",
        ) from None
    if task != "reward" and scores(model):
        raise TrainingError(
            "it scores completions and writes none", where=ref.name, remedy="Name another model"
        )
    if tokenizer.chat_template is None and kind == "decoder":
        raise TrainingError(
            "its tokenizer has no chat template", where=ref.name, remedy="Use a chat model"
        )
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    if on_gpu and train == "nothing":
        model.to(torch.device("cuda"))
    return Loaded(ref, model, tokenizer)


def _auto_class(task: Task) -> Any:
    import transformers

    return {
        "causal-lm": transformers.AutoModelForCausalLM,
        "seq2seq-lm": transformers.AutoModelForSeq2SeqLM,
        "reward": transformers.AutoModelForSequenceClassification,
    }[task]


def _head(task: Task) -> dict[str, int]:
    return {"num_labels": 1} if task == "reward" else {}


def scores(model: Any) -> bool:
    """Whether a loaded model came with a head that scores; if not, "reward" made a random one."""
    names = model.config.architectures or []
    return any(name.endswith("ForSequenceClassification") for name in names)


def base_folder(ref: ModelRef) -> str:
    """Where the weights lie: for adapters that stand alone, those that they were trained beside."""
    folder = Path(ref.source)
    if not holds_adapters(folder):
        return ref.source
    if ref.run is not None:
        # A project may have moved since; a run's id stays what it is.
        started_from = str(ref.run.metrics.get("started_from", ""))
        if started_from == "base" or _RUN.match(started_from):
            return resolve_model(ref.run.project, started_from).source
    recorded = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return str(recorded["base_model_name_or_path"])


def _distinct_pad(tokenizer: Any, model: Any) -> None:
    """Without a pad token of its own a model learns to ignore its end token."""
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.sep_token  # how an encoder's text ends
    if tokenizer.eos_token is None:
        raise TrainingError(
            "its tokenizer has no end token",
            where=str(tokenizer.name_or_path),
            remedy="Name one as eos_token in its tokenizer_config.json",
        )
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        unused = tokenizer.unk_token
        if unused is not None and unused != tokenizer.eos_token:
            tokenizer.pad_token = unused
        else:
            add_special_tokens(model, tokenizer, ["<|pad|>"], in_texts=False)
            tokenizer.pad_token = "<|pad|>"
    tokenizer.padding_side = "left"
    for settings in (model.config, getattr(model, "generation_config", None)):
        if settings is None:
            continue  # a model that only scores has none for generation
        settings.pad_token_id = tokenizer.pad_token_id
        settings.eos_token_id = tokenizer.eos_token_id


def add_special_tokens(
    model: Any, tokenizer: Any, tokens: Sequence[str], *, in_texts: bool = True
) -> list[int]:
    """Teach the tokenizer new special tokens and give each an embedding, the mean of the others.

    A random start would put the new rows far from all that the model has seen (Hewitt, 2021,
    "Initializing new word embeddings for pretrained language models").

    Args:
        in_texts: messages may use them, which `align.conversations` allows no other special token.

    Returns:
        The ids of `tokens`, those that it knew already included.
    """
    import torch

    before = model.get_input_embeddings().weight.shape[0]
    known = set(tokenizer.get_vocab())
    added = [token for token in tokens if token not in known]
    tokenizer.add_special_tokens({"additional_special_tokens": added}, False)
    if len(tokenizer) > before:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    new = [tokenizer.convert_tokens_to_ids(token) for token in added]
    if new:
        with torch.no_grad():
            tables = {
                id(layer.weight): layer.weight
                for layer in (model.get_input_embeddings(), model.get_output_embeddings())
                if layer is not None
            }
            for table in tables.values():
                table[new] = table[: min(new)].mean(dim=0)
    if in_texts and tokens:
        known_to_texts = getattr(model.config, TOKENS_IN_TEXTS, [])
        setattr(model.config, TOKENS_IN_TEXTS, sorted({*known_to_texts, *tokens}))
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in tokens]


def device_arguments(device: Literal["cpu", "cuda"] | None = None) -> dict[str, Any]:
    """Trainer arguments that a device decides: bfloat16 is several times slower on a CPU.

    Args:
        device: None: what this machine has.
    """
    import torch

    if device == "cuda" or (device is None and torch.cuda.is_available()):
        return {"bf16": not torch.cuda.is_available() or torch.cuda.is_bf16_supported()}
    return {
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }
