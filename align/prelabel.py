"""The step `prelabel`: a text classifier suggests labels before people see the texts.

    generate, import  →  prelabel  (suggestions)  →  push --suggestions

Any sequence classifier that transformers can load will do. What its labels mean to people, the
guideline says: `handloom push` matches them to the guideline's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from annotate.errors import InputError
from annotate.records import conform, flat_text
from annotate.runs import Project, Run, RunPlan

About = Literal["prompt", "output"]

_BATCH = 32
_LONGEST = 512  # tokens, where the model does not say how many it reads


def prelabel(
    project: Project,
    run: Run,
    model: str,
    *,
    about: About = "prompt",
    labels: Mapping[str, str] | None = None,
    threshold: float = 0.5,
    again: bool = False,
) -> Run:
    """Suggest a label, or labels, for each prompt or output of a run; table `suggestions`.

    Of a classifier whose labels exclude each other the most probable one; of a multi-label one all
    that reach the threshold, the most probable first, and no suggestion where none does, nor where
    there is no text. A text that is longer than the model reads keeps its end.

    Args:
        run: holds `prompts`, and `outputs` if these are labelled.
        model: a folder, or a model id of the Hugging Face hub.
        about: what is labelled: conversations up to the reply, or replies by themselves.
        labels: the classifier's label → what to call it instead.
        threshold: probability from which one of several labels is suggested.

    Raises:
        InputError: no such model, no such label of it, or nothing to label.
    """
    if not 0 < threshold < 1:
        raise InputError(f"--threshold is between 0 and 1, not {threshold:g}")
    renamed = dict(sorted((labels or {}).items()))
    settings = {"about": about, "labels": renamed, "threshold": threshold}
    plan = _plan(run, Path(model), settings)
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    every = _subjects(run, about)
    blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(every["text"], "")), "")
    subjects = every.filter(pc.invert(blank))
    classifier = Classifier.load(model)
    names = classifier.names(renamed)
    found = [_chosen(row, names, classifier.several, threshold) for row in classifier(subjects)]
    table = _table(subjects, found, _agent(model))
    with project.draft(plan) as draft:
        draft.write("suggestions", table)
        draft.note(texts=every.num_rows, suggestions=table.num_rows, labels=_counted(found))
    return draft.run


def _plan(run: Run, model: Path, settings: Mapping[str, Any]) -> RunPlan:
    """A folder's model goes by its files, a hub's by its name."""
    weights = sorted(path for path in model.glob("*") if path.is_file()) if model.is_dir() else []
    name = model.resolve().name if weights else str(model)
    named = {"model": name, **settings}
    return RunPlan("prelabel", run.round, (run,), named, inputs=tuple(weights))


def _table(subjects: pa.Table, found: Sequence[tuple[Any, float | None]], agent: str) -> pa.Table:
    """The `suggestions` of subjects that have one."""
    table = pa.table(
        {
            "prompt_id": subjects["prompt_id"],
            "output_id": subjects["output_id"],
            "value": pa.array([json.dumps(labels, ensure_ascii=False) for labels, _ in found]),
            "score": pa.array([score for _, score in found], pa.float64()),
            "agent": pa.repeat(agent, subjects.num_rows),
        }
    )
    return conform("suggestions", table.filter(pc.is_valid(table["score"])))


def _subjects(run: Run, about: About) -> pa.Table:
    """What is labelled: prompt_id, output_id (null of a prompt) and text."""
    if about == "output":
        outputs = run.read("outputs", ["prompt_id", "output_id", "completion"])
        table = outputs.rename_columns(["prompt_id", "output_id", "text"])
    else:
        prompts = run.read("prompts")
        table = pa.table(
            {
                "prompt_id": prompts["prompt_id"],
                "output_id": pa.nulls(prompts.num_rows, pa.string()),
                "text": pa.array(map(flat_text, prompts["messages"].to_pylist()), pa.string()),
            }
        )
    if not table.num_rows:
        raise InputError(f"this run has no {about}s to label", where=run.id)
    return table


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier and its tokenizer."""

    model: Any
    tokenizer: Any
    longest: int
    """Tokens that it reads."""

    @classmethod
    def load(cls, name: str) -> Classifier:
        """Load a classifier by name or path.

        Raises:
            InputError: there is none, or it does not classify.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name, truncation_side="left")
            model = AutoModelForSequenceClassification.from_pretrained(name)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"no text classifier can be loaded ({reason})",
                where=name,
                remedy="Name a folder or a hub id of a model for sequence classification",
            ) from None
        if tokenizer.pad_token is None:  # as models that write have it
            tokenizer.pad_token = tokenizer.eos_token
            model.config.pad_token_id = tokenizer.pad_token_id
        known = getattr(model.config, "max_position_embeddings", None) or _LONGEST
        longest = min(known, _LONGEST, tokenizer.model_max_length)
        return cls(model.eval(), tokenizer, longest)

    @property
    def several(self) -> bool:
        """Whether its labels do not exclude each other."""
        return bool(self.model.config.problem_type == "multi_label_classification")

    def names(self, renamed: Mapping[str, str]) -> list[str]:
        """What each of its outputs is called.

        Raises:
            InputError: a label to be renamed is not one of its own.
        """
        own = [str(name) for _, name in sorted(self.model.config.id2label.items())]
        unknown = sorted(set(renamed) - set(own))
        if unknown:
            raise InputError(
                f"the classifier has no label {unknown[0]!r}", remedy=f"Its: {', '.join(own)}"
            )
        return [renamed.get(name, name) for name in own]

    def __call__(self, subjects: pa.Table) -> Iterator[NDArray[np.float64]]:
        """The probability of each label, shape (labels,), of each text in turn."""
        import torch

        texts = subjects["text"].to_pylist()
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # little padding
        found: list[NDArray[np.float64]] = [np.empty(0)] * len(texts)
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            batch = self.tokenizer(
                [texts[at] for at in part],
                truncation=True,
                max_length=self.longest,
                padding=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits = self.model(**batch).logits.double()
            chances = logits.sigmoid() if self.several else logits.softmax(dim=-1)
            for at, row in zip(part, chances.numpy(), strict=True):
                found[at] = row
        return iter(found)


def _chosen(
    chances: NDArray[np.float64], names: Sequence[str], several: bool, threshold: float
) -> tuple[list[str], float | None]:
    """The labels to suggest, the most probable first, and the least probability among them."""
    order = np.argsort(-chances, kind="stable")
    kept = order[chances[order] >= threshold] if several else order[:1]
    return [names[at] for at in kept], float(chances[kept[-1]]) if len(kept) else None


def _agent(model: str) -> str:
    """The model's name as Argilla takes it."""
    name = re.sub(r"[^A-Za-z0-9_:./ -]+", "-", model if not Path(model).is_dir() else "")
    name = name or re.sub(r"[^A-Za-z0-9_:. -]+", "-", Path(model).resolve().name)
    return name[:200] if re.search(r"[A-Za-z0-9]", name) else "classifier"


def _counted(found: Sequence[tuple[list[str], float | None]]) -> dict[str, int]:
    names = [name for labels, _ in found for name in labels]
    return {name: names.count(name) for name in sorted(set(names))}
