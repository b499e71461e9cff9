"""Failures: filter, read side by side, choose several, send them to Argilla as a new batch."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import streamlit as st

from annotate.errors import HandloomError
from annotate.runs import Run
from streamlit_app.choosing import choose_run
from streamlit_app.data import judge_in_words, of_step, open_project, readable_runs
from streamlit_app.plain import escaped, show_error, show_next, show_text
from streamlit_app.sending import offer_to_send
from streamlit_app.tables import SORTS, FailureQuery, failure_counts, failure_page

PAGE_SIZES = (10, 25, 50)
WHY_COLORS: dict[str, Literal["red", "orange", "gray"]] = {
    "lost": "red",
    "tied": "orange",
    "thin evidence": "gray",
}


def picked_of(run: Run) -> list[str]:
    """Ids of the failures chosen in this session, in the order of choosing."""
    chosen: dict[str, list[str]] = st.session_state.setdefault("picked", {})
    return chosen.setdefault(run.id, [])


def pick_key(run: Run, failure_id: str) -> str:
    """Of a failure's checkbox."""
    return f"pick {run.id} {failure_id}"


def set_picked(run: Run, failure_ids: list[str], chosen: bool) -> None:
    """Choose failures, or no longer; on other pages of the list too."""
    picked = picked_of(run)
    for failure_id in failure_ids:
        st.session_state[pick_key(run, failure_id)] = chosen
        if chosen and failure_id not in picked:
            picked.append(failure_id)
        elif not chosen and failure_id in picked:
            picked.remove(failure_id)


def forget_picked(run: Run) -> None:
    """Choose nothing."""
    set_picked(run, list(picked_of(run)), False)


def toggled(run: Run, failure_id: str) -> None:
    """Take note of a checkbox that was just clicked."""
    set_picked(run, [failure_id], st.session_state[pick_key(run, failure_id)])


def ask_query(run: Run, sort: str) -> FailureQuery:
    """The filters, which the page's address keeps."""
    text_column, why_column, judge_column = st.columns([2, 1, 1])
    with text_column:
        text = st.text_input(
            "Search",
            key="text",
            bind="query-params",
            placeholder="Words in the prompt or a completion",
            icon=":material/search:",
        )
    with why_column:
        why_counts = failure_counts(run, "why")
        why = st.multiselect("Why", list(why_counts), key="why", bind="query-params")
    with judge_column:
        judges = failure_counts(run, "judged_by")
        judged_by = st.multiselect(
            "Judged by",
            list(judges),
            format_func=judge_in_words,
            key="judged",
            bind="query-params",
        )
    return FailureQuery(text, tuple(why), tuple(judged_by), sort)


def show_card(run: Run, row: dict[str, Any], number: int) -> None:
    """One failure: its prompt, and the two completions side by side, as plain text."""
    failure_id = row["failure_id"]
    with st.container(border=True, gap="xsmall"):
        head, facts = st.columns([1, 3], vertical_alignment="center")
        with head:
            st.checkbox(
                f"Failure {number}",
                value=failure_id in picked_of(run),
                key=pick_key(run, failure_id),
                on_change=toggled,
                args=(run, failure_id),
            )
        with facts, st.container(horizontal=True, horizontal_alignment="right", gap="small"):
            show_facts(row)
        st.caption("Prompt")
        show_text(row["prompt_text"])
        new, old = st.columns(2, border=True, gap="small")
        with new:
            show_completion("New model", row["model"], row["score"], row["completion"])
        with old:
            show_completion(
                "Against", row["versus_model"], row["versus_score"], row["versus_completion"]
            )


def show_completion(whose: str, model: str | None, score: float | None, text: str | None) -> None:
    """One of the two completions, under the model that wrote it and its score if it has one."""
    scored = "" if score is None else f" · score {score:.2f}"
    st.caption(f"{whose} **{escaped(model or 'unknown')}**{scored}")
    show_text(text)


def show_facts(row: dict[str, Any]) -> None:
    """Why it counts as a failure, and on what evidence."""
    st.badge(escaped(row["why"]), color=WHY_COLORS.get(row["why"], "gray"))
    evidence = f"judged by {judge_in_words(row['judged_by'] or '')}"
    if row["votes"] is not None:
        evidence += f", {row['votes']} vote{'' if row['votes'] == 1 else 's'}"
    st.caption(escaped(evidence), width="content")
    st.caption(escaped(row["failure_id"]), width="content")


def show_list(run: Run, query: FailureQuery) -> None:
    """The failures that match, a page at a time, with what can be done to the whole page."""
    size = st.session_state.get("page_size") or PAGE_SIZES[0]
    counted = failure_page(run, query, 1, size)
    if not counted.matching:
        st.text("No failure matches. Clear the search or a filter.")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        page = st.pagination(counted.pages, key="page") if counted.pages > 1 else 1
        shown = counted if page == 1 else failure_page(run, query, page, size)
        st.caption(f"{shown.matching:,} match", width="content")
        ids = [row["failure_id"] for row in shown.rows]
        st.button("Select this page", on_click=set_picked, args=(run, ids, True))
        st.segmented_control(
            "A page", PAGE_SIZES, default=size, key="page_size", label_visibility="collapsed"
        )
    first = (page - 1) * size + 1
    for number, row in enumerate(shown.rows, start=first):
        show_card(run, row, number)


def show() -> None:
    """The page."""
    st.title("Failures")
    project = open_project()
    runs = of_step(readable_runs(project)[0], "failures")
    if not runs:
        show_next(
            "No failures yet. After a model is trained, compare it and collect what it gets wrong:",
            "handloom evaluate",
            "handloom failures",
        )
        return
    run_column, sort_column = st.columns([2, 2])
    with run_column:
        run = choose_run("Failures of", runs)
    with sort_column:
        sort = st.selectbox("Sort", list(SORTS), key="sort", bind="query-params")
    with st.sidebar:
        try:
            # Before the list: clearing the choice must precede the checkboxes.
            offer_to_send(project, run, picked_of(run), clear=partial(forget_picked, run))
        except HandloomError as error:
            show_error(error)
    show_list(run, ask_query(run, sort))


show()
