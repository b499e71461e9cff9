"""Sending failures to Argilla: the dashboard's one write, the function behind `handloom push`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from annotate.errors import HandloomError
from annotate.guidelines import Guideline, load_guideline
from annotate.push import push
from annotate.runs import Project, Run
from annotate.server import connect
from streamlit_app.plain import escaped, show_error

MAX_OVERLAP = 50


@dataclass(frozen=True)
class Sent:
    """What was sent, and where it is now."""

    push_run: str
    items: int
    batches: dict[str, str]
    """Name → address of the page that shows it."""


def pair_guidelines(project: Project) -> list[str]:
    """Names of the guidelines that show two responses, the latest version of a task first.

    Raises:
        InputError: a guideline cannot be read.
    """
    versions = sorted(
        (path.parent.name, -int(path.stem[1:]))
        for path in (project.root / "guidelines").glob("*/v*.md")
        if path.stem[1:].isdigit()
    )
    loaded = [load_guideline(project.root, f"{task}@v{-version}") for task, version in versions]
    return [rules.name for rules in loaded if rules.kind == "compare"]


def send(
    project: Project, run: Run, failure_ids: Sequence[str], guideline: str, batch: str, overlap: int
) -> Sent:
    """Push the failures as a batch, and look up its address.

    Raises:
        HandloomError: as `push` does.
    """
    pushed = push(
        project,
        run,
        guideline=guideline,
        batch=batch.strip() or None,
        overlap=overlap,
        select=list(failure_ids),
    )
    with connect(project) as server:
        addresses = {
            name: f"{server.url}/dataset/{server.batch(name).id}/annotation-mode"
            for name in pushed.metrics["batches"]
        }
    return Sent(pushed.id, int(pushed.metrics["items"]), addresses)


def offer_to_send(
    project: Project, run: Run, failure_ids: Sequence[str], clear: Callable[[], None]
) -> None:
    """What became of the last sending, and the form that sends what was chosen.

    Args:
        clear: called when the choice is to be forgotten.
    """
    count = len(failure_ids)
    st.subheader("Have people judge")
    if last := st.session_state.get("sent"):
        _show_sent(last)
    st.caption(
        f"**{count} selected**"
        if count
        else "Select failures in the list, and send them to Argilla as a new batch."
    )
    with st.form("send", border=False):
        guideline = st.selectbox("Guideline", pair_guidelines(project))
        overlap = st.number_input(
            "People per item", 1, MAX_OVERLAP, value=_overlap(project, guideline), step=1
        )
        batch = st.text_input("Name of the batch", placeholder="made up if empty")
        submitted = st.form_submit_button(
            f"Send {count} to Argilla" if count else "Send to Argilla",
            type="primary",
            disabled=not count or guideline is None,
            width="stretch",
        )
    st.button("Clear the selection", on_click=clear, disabled=not count, width="stretch")
    if submitted and guideline is not None:
        st.session_state["sent"] = None
        try:
            with st.spinner("Sending"):
                sent = send(project, run, failure_ids, guideline, batch, int(overlap))
        except HandloomError as error:
            show_error(error, "Nothing was sent")
        else:
            st.session_state["sent"] = sent
            clear()
            st.rerun()


def _overlap(project: Project, guideline: str | None) -> int:
    rules: Guideline | None = load_guideline(project.root, guideline) if guideline else None
    return rules.overlap if rules else 1


def _show_sent(sent: Sent) -> None:
    with st.container(border=True):
        items = f"{sent.items} item{'' if sent.items == 1 else 's'}"
        st.markdown(f":green[:material/check_circle:] **{items} in Argilla**")
        for name, address in sent.batches.items():
            st.caption(escaped(name))
            st.link_button(
                "Open in Argilla", address, icon=":material/open_in_new:", width="stretch"
            )
        st.caption("When people have answered:")
        st.code(f"handloom pull {sent.push_run}", language=None, wrap_lines=True)
