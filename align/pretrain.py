"""A tokenizer and a small Llama from scratch: on a corpus, or on made-up dialogues without a hub.

A corpus is streamed (align.corpus, align.stream). Dialogues are one a row unless the recipe packs
them, and then still whole: cut off, they taught a model to ignore the prompt.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.corpus import corpus_files, documents, held_out, held_out_documents
from align.packed_rows import collate
from align.perplexity import HeldOutLoss, held_out_loss
from align.processes import different_result, is_main, shared_draft
from align.recipe import PretrainRecipe
from align.recipe.text import Corpus
from align.resources.preflight import preflight_pretraining
from align.stream import Stream, rows
from align.tokenizer import document_tokens, make_tokenizer
from align.training import CHECKPOINTS, fit, quiet_libraries, trainer_arguments
from annotate import support_desk
from annotate.errors import InputError
from annotate.runs import Project, Run, RunPlan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Dialogues held out of pre-training to measure perplexity.
_HELD_OUT = 300


@dataclass(frozen=True)
class Material:
    """What a model is pre-trained on."""

    train: Any
    """A data set, or a stream without end."""
    eval: Any
    collator: Any
    held_out: list[list[int]]
    """Token ids of each held-out document."""
    sizes: list[int]
    """Bytes of each one's text."""


def pretrain(
    project: Project,
    recipe: PretrainRecipe,
    name: str = "pretrain",
    *,
    again: bool = False,
    unchecked: bool = False,
) -> Run:
    """Pre-train as the recipe says; the finished run, if there is one.

    The metrics hold `perplexity` and `bits_per_byte` of held-out documents, as estimates.

    Args:
        name: of the recipe.
        again: make a new run although a finished one exists.
        unchecked: begin although the estimate says that memory will not do.

    Raises:
        InputError: the corpus is not there, or holds nothing to train on or to hold out.
        ResourceError: it does not fit into memory.
    """
    from transformers import TrainingArguments

    plan = RunPlan(
        "train",
        0,
        settings=recipe.identity("seed", "report_to", "launch")
        | different_result(recipe.batch_size),
        seed=recipe.seed,
        inputs=corpus_files(recipe.corpus, project.root) if recipe.corpus else (),
    )
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    preflight_pretraining(recipe, name, TrainingArguments, unchecked=unchecked)
    # Read before there is a draft, so that a corpus which is no good leaves nothing behind.
    texts = _tokenizer_texts(recipe, project.root)
    with shared_draft(project, plan) as draft, quiet_libraries():
        tokenizer = _kept_tokenizer(recipe, texts, draft.path / CHECKPOINTS / "tokenizer")
        material = (
            _streamed(recipe.corpus, recipe, project.root, tokenizer)
            if recipe.corpus
            else _demonstrated(recipe, tokenizer)
        )
        trainer = _trainer(
            recipe, tokenizer, material, trainer_arguments(recipe, draft, evaluates=True)
        )
        draft.note(method="pretrain", parameters=trainer.model.num_parameters())
        fit(trainer, recipe, draft)
        loss = held_out_loss(
            trainer.model,
            material.held_out,
            material.sizes,
            length=recipe.max_length,
            pad=tokenizer.pad_token_id,
        )
        draft.note(**loss.to_dict(seed=recipe.seed))
    return draft.run


def dialogue_texts(recipe: PretrainRecipe) -> list[list[str]]:
    """The words of the training dialogues, turn by turn."""
    return [[turn["content"] for turn in dialogue] for dialogue in _dialogues(recipe)]


def perplexity(model: Any, tokenizer: Any, recipe: PretrainRecipe) -> HeldOutLoss:
    """What a model makes of the dialogues that a recipe with demonstrations holds out."""
    held, sizes = _held_out_dialogues(recipe, tokenizer)
    return held_out_loss(model, held, sizes, length=recipe.max_length, pad=tokenizer.pad_token_id)


def _kept_tokenizer(
    recipe: PretrainRecipe, texts: Iterator[str], folder: Path
) -> PreTrainedTokenizerFast:
    """The tokenizer, kept beside the checkpoints: Unigram never comes out the same twice.

    Of several processes the first one makes it. The others have nothing to compute with yet, so
    they watch the folder; if the first one fails, the launcher ends them.
    """
    from transformers import PreTrainedTokenizerFast

    if is_main() and not folder.exists():
        made = make_tokenizer(texts, recipe.vocab_size, recipe.tokenizer)
        unfinished = folder.with_suffix(".partial")
        made.save_pretrained(unfinished)
        unfinished.rename(folder)
        return made
    while not folder.exists():
        time.sleep(0.1)
    kept: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return kept


def _tokenizer_texts(recipe: PretrainRecipe, root: Path) -> Iterator[str]:
    """What the tokenizer is made from.

    Raises:
        InputError: a corpus holds no document to train on.
    """
    if recipe.corpus is None:
        return chain.from_iterable(dialogue_texts(recipe))
    corpus = recipe.corpus
    kept = (text for text in documents(corpus, root) if not held_out(text, corpus.held_out))
    first = next(kept, None)
    if first is None:
        raise InputError(
            "no document to train on", where=corpus.path, remedy="Put some text there first"
        )
    return islice(chain([first], kept), recipe.tokenizer_documents)


def _streamed(
    corpus: Corpus, recipe: PretrainRecipe, root: Path, tokenizer: PreTrainedTokenizerFast
) -> Material:
    texts = list(islice(held_out_documents(corpus, root), corpus.held_out_documents))
    if not texts:
        raise InputError(
            "none of its documents is held out to measure perplexity",
            where=corpus.path,
            remedy="Raise corpus.held_out, or cut the text into more documents",
        )
    ids = list(document_tokens(tokenizer, texts))
    stream = Stream(
        corpus,
        root,
        tokenizer,
        length=recipe.max_length,
        packing=recipe.packing,
        seed=recipe.seed,
    )
    return Material(
        train=stream,
        eval=list(rows(ids, recipe.max_length, packing=recipe.packing)),
        collator=partial(collate, pad=tokenizer.pad_token_id),
        held_out=ids,
        sizes=[len(text.encode()) for text in texts],
    )


def _demonstrated(recipe: PretrainRecipe, tokenizer: Any) -> Material:
    from datasets import Dataset
    from transformers import DataCollatorForLanguageModeling

    train = _encoded(tokenizer, _dialogues(recipe), recipe.max_length)
    held, sizes = _held_out_dialogues(recipe, tokenizer)
    if recipe.packing:
        return Material(
            train=list(rows(train, recipe.max_length, packing=True)),
            eval=list(rows(held, recipe.max_length, packing=True)),
            collator=partial(collate, pad=tokenizer.pad_token_id),
            held_out=held,
            sizes=sizes,
        )
    return Material(
        train=Dataset.from_dict({"input_ids": train}),
        eval=Dataset.from_dict({"input_ids": held}),
        collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        held_out=held,
        sizes=sizes,
    )


def _held_out_dialogues(
    recipe: PretrainRecipe, tokenizer: Any
) -> tuple[list[list[int]], list[int]]:
    """Token ids of each, and bytes of its words."""
    dialogues = _dialogues(recipe, held_out=True)
    sizes = [sum(len(turn["content"].encode()) for turn in turns) for turns in dialogues]
    return _encoded(tokenizer, dialogues, recipe.max_length), sizes


def _dialogues(recipe: PretrainRecipe, *, held_out: bool = False) -> list[support_desk.Messages]:
    wanted = recipe.demonstrations
    if wanted is None:
        raise ValueError("the recipe reads a corpus")
    count, seed = (_HELD_OUT, wanted.seed + 1) if held_out else (wanted.n, wanted.seed)
    return support_desk.dialogues(count, seed=seed, quality=wanted.quality)


def _encoded(tokenizer: Any, dialogues: list[Any], max_length: int) -> list[list[int]]:
    texts = [tokenizer.apply_chat_template(dialogue, tokenize=False) for dialogue in dialogues]
    # Cut here, since a truncation asked of the tokenizer would be saved with it.
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [row[:max_length] for row in rows]


def _trainer(
    recipe: PretrainRecipe, tokenizer: Any, material: Material, arguments: dict[str, Any]
) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **recipe.architecture.model_dump(),
        )
    )
    return Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=material.train,
        eval_dataset=material.eval,
        data_collator=material.collator,
        processing_class=tokenizer,
    )
