"""A tokenizer and a small Llama from scratch, for use without a hub.

One dialogue a row: packed rows cut prompts off, and a model trained so ignored the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from align.recipe import PretrainRecipe
from align.training import fit, quiet_libraries, trainer_arguments
from annotate import support_desk
from annotate.runs import Project, Run, RunPlan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, END = "<|pad|>", "<|bos|>", "<|eos|>", "<|end|>"
SPECIAL = (PAD, BOS, EOS, END, "<|system|>", "<|user|>", "<|assistant|>")
# The generation marks let a trainer find the assistant's own words.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '" + END + "' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Held out of pre-training to measure perplexity.
_HELD_OUT = 300


def pretrain(project: Project, recipe: PretrainRecipe, *, again: bool = False) -> Run:
    """Pre-train as the recipe says; the finished run, if there is one.

    The metrics hold `perplexity`: e to the mean loss a token of 300 held-out dialogues.
    """
    plan = RunPlan("train", 0, settings=recipe.model_dump(exclude={"seed"}), seed=recipe.seed)
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    with project.draft(plan) as draft, quiet_libraries():
        texts = dialogue_texts(recipe)
        tokenizer = make_tokenizer(recipe, (turn for dialogue in texts for turn in dialogue))
        trainer = _trainer(recipe, tokenizer, trainer_arguments(recipe, draft, evaluates=True))
        draft.note(method="pretrain", parameters=trainer.model.num_parameters())
        fit(trainer, recipe, draft)
        draft.note(perplexity=perplexity(trainer.model, tokenizer, recipe))
    return draft.run


def dialogue_texts(recipe: PretrainRecipe) -> list[list[str]]:
    """The words of the training dialogues, turn by turn."""
    return [[turn["content"] for turn in dialogue] for dialogue in _dialogues(recipe)]


def make_tokenizer(recipe: PretrainRecipe, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `texts`, special tokens first, with the chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=recipe.vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=list(SPECIAL[3:]),
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def perplexity(model: Any, tokenizer: Any, recipe: PretrainRecipe) -> float:
    """e to the mean negative log-likelihood a token of the held-out dialogues."""
    import torch

    model.eval()
    total, count = 0.0, 0
    rows = _encoded(tokenizer, _dialogues(recipe, held_out=True), recipe.max_length)
    with torch.inference_mode():
        for start in range(0, len(rows), 50):
            batch = tokenizer.pad({"input_ids": rows[start : start + 50]}, return_tensors="pt")
            batch = batch.to(model.device)
            # Nothing stands before a row's first token, so nothing predicts it.
            first = batch["input_ids"] == tokenizer.bos_token_id
            labels = batch["input_ids"].masked_fill(first | (batch["attention_mask"] == 0), -100)
            loss = model(**batch, labels=labels).loss
            tokens = int((labels != -100).sum())
            total, count = total + float(loss) * tokens, count + tokens
    return float(torch.exp(torch.tensor(total / count)))


def _dialogues(recipe: PretrainRecipe, *, held_out: bool = False) -> list[support_desk.Messages]:
    wanted = recipe.demonstrations
    count, seed = (_HELD_OUT, wanted.seed + 1) if held_out else (wanted.n, wanted.seed)
    return support_desk.dialogues(count, seed=seed, quality=wanted.quality)


def _encoded(tokenizer: Any, dialogues: list[Any], max_length: int) -> list[list[int]]:
    texts = [tokenizer.apply_chat_template(dialogue, tokenize=False) for dialogue in dialogues]
    # Cut here, since a truncation asked of the tokenizer would be saved with it.
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [row[:max_length] for row in rows]


def _trainer(recipe: PretrainRecipe, tokenizer: Any, arguments: dict[str, Any]) -> Any:
    import torch
    from datasets import Dataset
    from transformers import (
        DataCollatorForLanguageModeling,
        LlamaConfig,
        LlamaForCausalLM,
        Trainer,
        TrainingArguments,
    )

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
    sets = {
        held_out: Dataset.from_dict(
            {
                "input_ids": _encoded(
                    tokenizer, _dialogues(recipe, held_out=held_out), recipe.max_length
                )
            }
        )
        for held_out in (False, True)
    }
    return Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=sets[False],
        eval_dataset=sets[True],
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
    )
