"""Elasticsearch's simple query string, read into a tree of what to look for.

    card payment        both words                card | cash      either
    card + payment      both                      -refund          not
    "card payment"      next to each other        pay*             begins with
    (card | cash) -fee  grouped                   paymnt~1         at most one letter different
    "card fee"~2        at most two words between them, in any order

Operators bind from left to right with equal strength, as in Lucene's SimpleQueryParser; a space is
an `+`. A word holding punctuation or ideographs ("well-known") is searched as a phrase. `~` alone
is `~2`, which is also the most that a word may differ by.
"""

import re
import unicodedata
from dataclasses import dataclass, replace

from annotate.embedded.documents import storable

# Scripts written without spaces: each sign becomes a word, as Elasticsearch's tokenizer does.
# SQLite's would keep a whole sentence as one word.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator>[+|()])
      | (?P<minus>-)
      | "(?P<phrase>[^"]*"(?:~\d*)?)
      | (?P<word>(?:\\.|[^\s"+|()\\])+)
      | (?P<stray>["\\])
    )""",
    re.VERBOSE | re.DOTALL,
)


_FUZZY = re.compile(r"(?<=.)(?<!\\)~\d*$")

MOST_EDITS = 2


def searchable(text: str) -> str:
    """The text as it is indexed: signs of unspaced scripts stand apart."""
    return text if text.isascii() else _UNSPACED.sub(r" \1 ", text)


@dataclass(frozen=True)
class Words:
    """One word or several, next to each other.

    Attributes:
        text: as typed, with at least one letter or digit and without quotes.
        prefix: the last word only begins so.
        edits: letters by which the word, then a single one, may differ.
        slop: words that may stand between them.
    """

    text: str
    prefix: bool = False
    edits: int = 0
    slop: int = 0

    def split(self) -> list[str]:
        """The single words."""
        return "".join(sign if _in_word(sign) else " " for sign in self.text).split()


@dataclass(frozen=True)
class Not:
    """What does not match."""

    inner: "Node"


@dataclass(frozen=True)
class Both:
    """What matches both."""

    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class Either:
    """What matches one or the other."""

    left: "Node"
    right: "Node"


Node = Words | Not | Both | Either


def parse(query: str) -> Node | None:
    """Read a simple query string; None if it holds no word at all (it then matches nothing).

    Never raises: as in Elasticsearch, what makes no sense (a lone quote, a stray parenthesis) is
    ignored.
    """
    tokens = [
        (match.lastgroup or "", match.group(match.lastgroup or 0))
        for match in _TOKEN.finditer(query)
        if match.lastgroup != "stray"
    ]
    parser = _Parser(tokens)
    result = parser.expression()
    while parser.more():  # a closing parenthesis too many: go on behind it
        parser.next()
        result = _join("+", result, parser.expression())
    return result


class _Parser:
    """Recursive descent over (kind, text) tokens."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0

    def more(self) -> bool:
        return self._at < len(self._tokens)

    def next(self) -> tuple[str, str]:
        self._at += 1
        return self._tokens[self._at - 1]

    def expression(self) -> Node | None:
        result: Node | None = None
        operator = "+"
        while self.more():
            kind, text = self._tokens[self._at]
            if (kind, text) == ("operator", ")"):
                break
            if kind == "operator" and text in "+|":
                operator = text
                self.next()
                continue
            result = _join(operator, result, self.operand())
            operator = "+"
        return result

    def operand(self) -> Node | None:
        negated = False
        while self.more() and self._tokens[self._at][0] == "minus":
            negated = not negated
            self.next()
        if not self.more():
            return None
        kind, text = self._tokens[self._at]
        if kind == "operator" and text != "(":
            return None
        self.next()
        found = self._group() if kind == "operator" else _leaf(kind, text)
        if found is None or not negated:
            return found
        return Not(found)

    def _group(self) -> Node | None:
        inner = self.expression()
        if self.more():
            self.next()  # the closing parenthesis
        return inner


def _leaf(kind: str, text: str) -> Node | None:
    prefix, distance = False, 0
    if kind == "phrase":
        text, _, tilde = text.rpartition('"')
        distance = _distance(tilde)
    else:
        prefix = text.endswith("*") and not text.endswith("\\*")
        text = text.rstrip("*") if prefix else text
        if (fuzzy := _FUZZY.search(text)) and not prefix:
            text, distance = text[: fuzzy.start()], _distance(fuzzy[0])
        text = re.sub(r"\\(.)", r"\1", text)
    if not any(map(_in_word, text)):
        return None
    found = Words(searchable(storable(text)).replace('"', " ").replace("\0", " ").strip(), prefix)
    if kind == "phrase":
        return replace(found, slop=distance)
    single = len(found.split()) == 1
    return replace(found, edits=min(distance, MOST_EDITS) if single else 0)


def _in_word(sign: str) -> bool:
    """Whether the index takes a sign for a part of a word: as its tokenizer is told to."""
    category = unicodedata.category(sign)
    return category[0] in "LN" or category in ("Co", "Mn", "Mc") or sign == "_"


def _distance(tilde: str) -> int:
    """`~` and digits → the number; nothing → 0; `~` alone → 2."""
    return (int(tilde[1:5]) if tilde[1:] else MOST_EDITS) if tilde else 0


def _join(operator: str, left: Node | None, right: Node | None) -> Node | None:
    if left is None or right is None:
        return left or right
    return Either(left, right) if operator == "|" else Both(left, right)
