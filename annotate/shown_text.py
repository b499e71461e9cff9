"""How a text stands on Argilla's page, and where a place on the page lies in the text.

The page of Argilla 2.8 puts what it is given into the document as markup, so markup is escaped
first. Where an annotator marks a stretch, its offsets count the characters *of the page*: after
unescaping, in UTF-16 code units, because that is how a browser counts (an emoji is two, a combining
accent one of its own). The server checks the same offsets against the length of the *escaped* text,
in code points. We keep code points of the text as the model wrote it: what Python and Arrow count.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

EMPTY_RESPONSE = "(empty response)"
MAX_MARKED = 32_768
"""Characters of a text that can be marked: Chromium begins a text node anew, and with it the
offsets, after 65,536 UTF-16 units, and a character is at most two."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_ASTRAL = re.compile(r"[\U00010000-\U0010ffff]")
_LINE_END = re.compile(r"\r\n?")


def readable(text: str) -> str:
    """A text as it reads on the page: one kind of line end, control characters made visible."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _LINE_END.sub("\n", text))


def shown(text: str | None, if_empty: str) -> str:
    """A text as Argilla may have it: readable, its markup escaped."""
    if text is None or not text.strip():
        return if_empty
    return html.escape(readable(text), quote=False)


def shown_to_mark(text: str | None, if_empty: str) -> str:
    """A text whose stretches are to be marked: reads as `shown` does.

    Characters beyond U+FFFF are written as references, for else the escaped text may have fewer
    code points than the page has UTF-16 units, and the server would refuse marks near its end.
    """
    return _ASTRAL.sub(lambda found: f"&#{ord(found[0])};", shown(text, if_empty))


@dataclass(frozen=True)
class PageOffsets:
    """Offsets on the page and in the text that it shows."""

    first: Sequence[int]
    """By UTF-16 unit of the page: the character of the text that it belongs to."""
    after: Sequence[int]
    """By UTF-16 unit: the end of that character; a line end of two is one."""

    @classmethod
    def of(cls, text: str) -> PageOffsets:
        """The offsets of one text: at once where both count alike, else a step a character."""
        if "\r\n" not in text and not _ASTRAL.search(text):
            return cls(range(len(text)), range(1, len(text) + 1))
        first: list[int] = []
        after: list[int] = []
        at = 0
        while at < len(text):
            end = at + (2 if text.startswith("\r\n", at) else 1)
            units = 2 if ord(text[at]) > 0xFFFF else 1
            first += [at] * units
            after += [end] * units
            at = end
        return cls(first, after)

    def __len__(self) -> int:
        """UTF-16 units of the page."""
        return len(self.first)

    def in_text(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the text that a stretch of the page shows; halves of characters count.

        Raises:
            ValueError: there is no such stretch.
        """
        if not 0 <= start < end <= len(self):
            raise ValueError(f"{start} to {end} is no stretch of {len(self)} characters")
        return self.first[start], self.after[end - 1]

    def on_page(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the page that shows a stretch of the text: the inverse of `in_text`.

        Raises:
            ValueError: there is no such stretch.
        """
        length = self.after[-1] if self.after else 0
        if not 0 <= start < end <= length:
            raise ValueError(f"{start} to {end} is no stretch of {length} characters")
        units = range(len(self))
        begins = next(unit for unit in units if self.after[unit] > start)
        ends = next((unit for unit in units if self.first[unit] >= end), len(self))
        return begins, ends
