"""Tokenizers from scratch: byte-level BPE and Unigram, special tokens first.

Both spell the text in bytes before anything else, so that no text is unknown and each comes back as
it was. BPE merges the most frequent neighbours (Sennrich et al. 2016); Unigram prunes a large
vocabulary to the pieces that make the texts most probable (Kudo 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, END = "<|pad|>", "<|bos|>", "<|eos|>", "<|end|>"
TURN_TOKENS = (END, "<|system|>", "<|user|>", "<|assistant|>")
"""What `CHAT_TEMPLATE` writes beside the tokens that every tokenizer has names for."""
SPECIAL = (PAD, BOS, EOS, *TURN_TOKENS)
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
# How byte 255 is spelled, which no text in UTF-8 has.
_IMPOSSIBLE = "ÿ"
# Documents tokenized together: the tokenizer works on them in parallel.
_TOGETHER = 256


def make_tokenizer(
    texts: Iterable[str], vocab_size: int, kind: Literal["bpe", "unigram"] = "bpe"
) -> PreTrainedTokenizerFast:
    """A tokenizer learnt from `texts`, with the chat template.

    Args:
        vocab_size: special tokens and the 256 bytes included; few texts may give fewer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt = Tokenizer(models.BPE() if kind == "bpe" else models.Unigram())
    learnt.pre_tokenizer = in_bytes if kind == "bpe" else pre_tokenizers.WhitespaceSplit()
    learnt.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer if kind == "bpe" else trainers.UnigramTrainer
    learnt.train_from_iterator(
        texts if kind == "bpe" else _words_twice(texts, in_bytes),
        trainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    learnt.pre_tokenizer = in_bytes
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=learnt,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=list(TURN_TOKENS),
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _words_twice(texts: Iterable[str], in_bytes: Any) -> Iterator[str]:
    """Each text as its words in bytes, and each word once more with an impossible byte at its end.

    The trainer takes for candidates what stands in two different words, so that it would never
    learn a frequent word that is part of no other. The byte is in no piece worth keeping.
    """
    seen: set[str] = set()
    for text in texts:
        words = [word for word, _ in in_bytes.pre_tokenize_str(text)]
        new = set(words) - seen
        seen |= new
        yield " ".join([*words, *(f"{word}{_IMPOSSIBLE}" for word in sorted(new))])


def document_tokens(tokenizer: Any, texts: Iterable[str]) -> Iterator[list[int]]:
    """Each text between the tokens that begin and end a document.

    A special token that stands in a text is read as ordinary characters: only we end a document.
    """
    waiting = iter(texts)
    while some := list(islice(waiting, _TOGETHER)):
        yield from _between(tokenizer, some)


def _between(tokenizer: Any, texts: Sequence[str]) -> Iterator[list[int]]:
    read = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
    for ids in read["input_ids"]:
        yield [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
