"""Showing what models and annotators wrote: as text, never as markup.

Streamlit renders Markdown in most places, labels and messages among them, and Markdown fetches
remote images. So a text of others is shown by `st.text` or `st.code`, which render nothing, and
goes anywhere else only through `escaped`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import streamlit as st

from annotate.errors import HandloomError

QUESTIONS = {
    "vote": "Which is better",
    "strength": "How much better",
    "both_bad": "Both bad",
    "rating": "Rating",
}
"""What the pages call the questions that agreement is measured on."""

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def escaped(text: str) -> str:
    """A text that Markdown shows as it stands, on one line.

    A backslash before every ASCII punctuation mark takes away its meaning (CommonMark 2.4); that
    covers Streamlit's own `:material/…:`, `:red[…]` and `$…$` too, and bare addresses.
    """
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))


def show_text(text: str | None) -> None:
    """A text as it was written; a word in its place where there is none."""
    if text and text.strip():
        st.text(text)
    else:
        st.caption("*(empty)*")


def show_error(error: HandloomError, what_failed: str = "This cannot be shown") -> None:
    """Say what is wrong and what to do, as the command line does."""
    with st.container(border=True):
        st.markdown(f":red[:material/error:] **{what_failed}**")
        st.text(str(error))


def show_next(what: str, *commands: str) -> None:
    """Say what is missing and the commands that make it."""
    with st.container(border=True):
        st.markdown(f":material/arrow_forward: {what}")
        for command in commands:
            st.code(command, language=None)


def estimate_in_words(estimate: Mapping[str, Any]) -> str:
    """An estimate as the command line prints it: "0.864 [0.843, 0.887], n=999"."""
    value, low, high, n = (estimate[name] for name in ("value", "low", "high", "n"))
    if value is None:
        return f"undefined ({estimate['reason']}), n={n:,}"
    if low is None or high is None:
        return f"{value:z.3f} (no interval), n={n:,}"
    return f"{value:z.3f} [{low:z.3f}, {high:z.3f}], n={n:,}"


def interval_in_words(interval: Mapping[str, Any]) -> str:
    """One of a figure's intervals as in "[0.843, 0.887]", or why there is none."""
    if interval["low"] is None or interval["high"] is None:
        return f"none ({interval['reason']})"
    return f"[{interval['low']:z.3f}, {interval['high']:z.3f}]"


def show_estimate(title: str, estimate: Mapping[str, Any], note: str) -> None:
    """An estimate as a large figure, over its interval, what it rests on, and a note."""
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    st.metric(title, "undefined" if value is None else f"{value:z.3f}")
    interval = f"95 % interval {low:z.3f} to {high:z.3f}" if low is not None else "no interval"
    reason = f" ({escaped(estimate['reason'])})" if estimate["reason"] else ""
    rests_on = f"n={estimate['n']:,} {escaped(estimate['over'])}"
    st.caption(f"{interval}{reason}, {rests_on}  \n{escaped(note)}")
