"""Showing what models and annotators wrote: as text, never as markup.

Streamlit renders Markdown in most places, labels and messages among them, and Markdown fetches
remote images. So a text of others is shown by `st.text` or `st.code`, which render nothing, and
goes anywhere else only through `escaped`.
"""

from __future__ import annotations

import re

import streamlit as st

from annotate.errors import HandloomError

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
