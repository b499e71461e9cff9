"""Choosing a run: the newest first, kept in the page's address."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from annotate.runs import Run
from streamlit_app.data import of_step, open_project, readable_runs
from streamlit_app.plain import show_next


def choose_run(label: str, runs: Sequence[Run]) -> Run:
    """One of these runs."""
    by_id = {run.id: run for run in runs}
    return by_id[st.selectbox(label, list(by_id), key="run", bind="query-params")]


def choose_judge_run() -> Run | None:
    """One of the judge runs; None, and what makes one is shown, where there is none yet."""
    runs = of_step(readable_runs(open_project())[0], "judge")
    if not runs:
        show_next(
            "Nothing has been judged yet. When people have answered in Argilla:",
            "handloom pull",
            "handloom judge",
        )
        return None
    return choose_run("Judged in", runs)
