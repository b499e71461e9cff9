"""Agreement of free texts: plain measures of how alike they read, named for what they are.

Two good corrections of one answer may share few words: low figures here say that people write
differently, not that somebody is wrong.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import scipy.sparse as sp

from annotate.agreement.contributions import answer_pairs, contributions_of_pairs
from annotate.agreement.figure import Figure
from annotate.agreement.raw import share
from annotate.agreement.reasons import nothing_to_compare, undefined_figure
from annotate.agreement.resampling import Resampling, measured
from annotate.annotations import Texts
from annotate.labels import factorize
from annotate.statistics import RESAMPLES, Reals

_WORD = re.compile(r"\w+")


def normalised(text: str) -> str:
    """Compatibility forms and case folded, runs of white space one blank, ends trimmed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def exact_match(texts: Texts, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """The share of pairs of answers to an item that are the same text once normalised."""
    definition = (
        "Normalised exact match: the share of pairs of texts of an item that are the same but for "
        "case, white space and Unicode's compatible forms"
    )
    pairs = answer_pairs(texts.item)
    code, _ = factorize([normalised(text) for text in texts.text])
    same = (code[pairs.first] == code[pairs.second]).astype(np.float64)
    return _over_pairs(texts, same, definition, Resampling(seed, resamples))


def word_overlap(texts: Texts, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """Mean F1 of the words of two answers to an item, a repeated word counting as often as it is.

    Two texts without words are alike.
    """
    definition = (
        "Pairwise similarity (word overlap): mean over pairs of texts of an item of 2 |common "
        "words| / (|words of one| + |words of the other|), repeats counted"
    )
    pairs = answer_pairs(texts.item)
    words = _words(texts)
    length = np.asarray(words.sum(axis=1), dtype=np.float64)
    # Words in common, each as often as in the text that has fewer of it.
    fewer = words[pairs.first].minimum(words[pairs.second])
    common = np.asarray(fewer.sum(axis=1), dtype=np.float64)
    both = length[pairs.first] + length[pairs.second]
    overlap = np.divide(2 * common, both, out=np.ones(len(both)), where=both > 0)
    return _over_pairs(texts, overlap, definition, Resampling(seed, resamples))


def _words(texts: Texts) -> sp.csr_array:
    """How often each text has each word, shape (texts, words)."""
    found = [_WORD.findall(normalised(text)) for text in texts.text]
    word, names = factorize([word for words in found for word in words])
    row = np.repeat(np.arange(len(found)), [len(words) for words in found])
    counts = sp.coo_array((np.ones(len(word)), (row, word)), shape=(len(found), len(names)))
    return counts.tocsr()


def _over_pairs(texts: Texts, values: Reals, definition: str, how: Resampling) -> Figure:
    pairs = answer_pairs(texts.item)
    sums = np.stack([values, np.ones(len(values))], axis=1)
    parts = contributions_of_pairs(texts.item, texts.annotator, pairs, sums, len(texts.items))
    n = int((parts.share >= 0).sum())
    reason = nothing_to_compare(texts, n)
    if reason:
        return undefined_figure(texts, reason, definition)
    return measured(texts, parts, share, definition, how, pairable=n, least=0)
