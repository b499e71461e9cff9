"""Models in CTranslate2's form: converted once, checked, and kept by what they were made from."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from align.backends.tokens import Reader, prompt_tokens
from align.model import load_model
from align.model_ref import ModelRef
from annotate.errors import InputError, TrainingError
from annotate.runs import sha256

_TOLERANCE = 1e-2
"""Largest difference of a log-probability that rounding explains, in single precision."""

_PROBE = [{"role": "user", "content": "What can you do for me, and how long does it take?"}]
_READ = (".safetensors", ".json", ".jinja", ".model")


def ctranslate2() -> Any:
    """The library.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module("ctranslate2")
    except ImportError:
        raise InputError(
            "CTranslate2 is not installed",
            where="--backend ctranslate2",
            remedy="`pip install 'handloom[train]'`, or --backend transformers",
        ) from None


def converted(read: Reader, cache: Path) -> Path:
    """The folder with a model in CTranslate2's form, made if it is not there yet.

    Raises:
        InputError: CTranslate2 is not installed.
        TrainingError: the model cannot be converted, or is another one when converted.
    """
    library, source = ctranslate2(), _folder(read.ref)
    target = cache / _digest(source)
    if (target / "model.bin").is_file():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".") as room:
        made = Path(room) / "model"
        _convert(library, source, made, read.ref)
        _compare(library, made, read)
        with contextlib.suppress(OSError):  # another process was faster
            made.rename(target)
    return target


def _folder(ref: ModelRef) -> Path:
    """The model's files on this machine."""
    if Path(ref.source).is_dir():
        folder = Path(ref.source)
    else:
        from huggingface_hub import snapshot_download

        try:
            patterns = [f"*{ending}" for ending in _READ]
            folder = Path(snapshot_download(ref.source, allow_patterns=patterns))
        except (OSError, ValueError) as error:
            first = str(error).strip().split("\n")[0].rstrip(".")
            raise TrainingError(f"it cannot be loaded: {first}", where=ref.name) from None
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise TrainingError(
            "these are adapters without their model",
            where=ref.name,
            remedy="`handloom merge` makes one of both; or --backend transformers",
        )
    return folder


def _digest(folder: Path) -> str:
    """Of all that the converted model depends on."""
    parts = [importlib.metadata.version("ctranslate2")]
    files = sorted(path for path in folder.iterdir() if path.suffix in _READ)
    parts += [f"{path.name} {sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _convert(library: Any, source: Path, target: Path, ref: ModelRef) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    converter = library.converters.TransformersConverter(str(source))
    try:
        converter.convert(str(target), quantization="float32")
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, NotImplementedError) as e:
        first = str(e).strip().split("\n")[0].split(" (supported")[0].rstrip(".")
        raise TrainingError(
            f"CTranslate2 cannot convert it: {first}",
            where=ref.name,
            remedy="--backend transformers runs it",
        ) from None
    # It writes null for a token that the tokenizer lacks, and cannot read that.
    config = target / "config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    texts = {name: "" if value is None else value for name, value in settings.items()}
    config.write_text(json.dumps(texts), encoding="utf-8")


def _compare(library: Any, folder: Path, read: Reader) -> None:
    """Refuse a conversion that gives other probabilities than the model: a converter may be silent
    about a setting that it does not know.
    """
    import torch

    loaded = load_model(read.ref)
    (tokens,) = prompt_tokens(read, [_PROBE])
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([tokens], device=loaded.model.device)).logits[0]
    generator = library.Generator(str(folder), device="cpu", compute_type="float32")
    ours = np.asarray(generator.forward_batch([tokens], return_log_probs=True))[0]
    # Loading adds a row for a pad token that is missing; a converter may fill its table up.
    width = min(ours.shape[1], logits.shape[1])
    theirs = torch.log_softmax(logits[:, :width].float(), -1).cpu().numpy()
    likely = theirs > np.log(1e-3)
    apart = float(np.abs(ours[:, :width] - theirs)[likely].max())
    if not apart < _TOLERANCE:
        raise TrainingError(
            f"converted to CTranslate2's form it is another model (log-probabilities up to "
            f"{apart:.2g} apart)",
            where=read.ref.name,
            remedy="--backend transformers runs it as it is",
        )
