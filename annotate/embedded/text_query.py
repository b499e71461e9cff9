"""Elasticsearch's simple query string, as one FTS5 expression.

    card payment        both words                card | cash      either
    card + payment      both                      -refund          not
    "card payment"      next to each other        pay*             begins with
    (card | cash) -fee  grouped

Operators bind from left to right with equal strength, as in Lucene's SimpleQueryParser; a space is
an `+`. A word holding punctuation or ideographs ("well-known") is searched as a phrase.
"""

import re
from dataclasses import dataclass

# Scripts written without spaces: each sign becomes a word, as Elasticsearch's tokenizer does.
# SQLite's would keep a whole sentence as one word.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator>[+|()])
      | (?P<minus>-)
      | "(?P<phrase>[^"]*)"(?:~\d*)?
      | (?P<word>(?:\\.|[^\s"+|()\\])+)
      | (?P<stray>["\\])
    )""",
    re.VERBOSE | re.DOTALL,
)


def searchable(text: str) -> str:
    """The text as it is indexed: signs of unspaced scripts stand apart."""
    return _UNSPACED.sub(r" \1 ", text)


@dataclass(frozen=True)
class TextMatch:
    """Records that match an FTS5 expression, or with `complement` those that do not."""

    expression: str
    complement: bool = False


def parse(query: str) -> TextMatch | None:
    """Translate a simple query string; None if it holds no word at all (it then matches nothing).

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

    def expression(self) -> TextMatch | None:
        result: TextMatch | None = None
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

    def operand(self) -> TextMatch | None:
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
        return TextMatch(found.expression, not found.complement)

    def _group(self) -> TextMatch | None:
        inner = self.expression()
        if self.more():
            self.next()  # the closing parenthesis
        return inner


def _leaf(kind: str, text: str) -> TextMatch | None:
    prefix = False
    if kind == "word":
        prefix = text.endswith("*") and not text.endswith("\\*")
        text = re.sub(r"~\d*$", "", text.rstrip("*") if prefix else text)
        text = re.sub(r"\\(.)", r"\1", text)
    if not any(sign.isalnum() or sign == "_" for sign in text):
        return None
    words = searchable(text).replace('"', " ").replace("\0", " ").strip()
    return TextMatch(f'"{words}"*' if prefix else f'"{words}"')


def _join(operator: str, left: TextMatch | None, right: TextMatch | None) -> TextMatch | None:
    """Combine two matches; FTS5 has only a binary NOT, so complements are moved outwards."""
    if left is None or right is None:
        return left or right
    a, b = left.expression, right.expression
    if operator == "|":
        # a or b = not (not a and not b)
        inverse = _and(a, not left.complement, b, not right.complement)
        return TextMatch(inverse.expression, not inverse.complement)
    return _and(a, left.complement, b, right.complement)


def _and(a: str, a_complement: bool, b: str, b_complement: bool) -> TextMatch:
    if a_complement and b_complement:
        return TextMatch(f"({a} OR {b})", complement=True)
    if b_complement:
        return TextMatch(f"({a} NOT {b})")
    if a_complement:
        return TextMatch(f"({b} NOT {a})")
    return TextMatch(f"({a} AND {b})")
