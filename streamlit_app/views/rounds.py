"""Rounds: what exists of each, win rate and agreement over the rounds, the next command."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from align.rounds import SOURCES, STEPS, RoundState, rounds
from streamlit_app.charts import estimates_by_round
from streamlit_app.data import estimate_row, judges_in_words, open_project
from streamlit_app.plain import QUESTIONS, escaped, show_estimate

ROLES = {"previous": "the previous model", "round 0": "the round 0 model", "named": "a named model"}


def show_next(states: Sequence[RoundState]) -> None:
    """What to type now, and what was left unfinished."""
    unfinished = [run_id for state in states for run_id in state.unfinished]
    with st.container(border=True):
        st.markdown(f":material/arrow_forward: **Next**, round {states[-1].round}")
        st.code(states[-1].next_command, language=None, wrap_lines=True)
        for run_id in unfinished:
            st.caption(
                f"{escaped(run_id)} is unfinished: it is still running, or was interrupted and "
                "its command resumes it."
            )


def show_latest(states: Sequence[RoundState]) -> None:
    """The newest evaluation in figures, each with its interval and who judged."""
    evaluated = [state for state in states if state.win_rates]
    if not evaluated:
        return
    newest = evaluated[-1]
    st.subheader(f"Round {newest.round}'s model")
    for column, one in zip(st.columns(len(newest.win_rates)), newest.win_rates, strict=True):
        with column:
            roles = " and ".join(ROLES.get(role, escaped(role)) for role in one["roles"])
            note = judges_in_words(one["judged_by"])
            show_estimate(f"Win rate against {roles}", one["win_rate"], note)


def show_win_rates(states: Sequence[RoundState]) -> None:
    """The win rate of each round's model against the earlier ones."""
    rows = [
        {"round": state.round} | estimate_row(f"against {ROLES.get(role, role)}", one["win_rate"])
        for state in states
        for one in state.win_rates
        if one["win_rate"]["value"] is not None
        for role in one["roles"]  # the previous model of round 1 is the round 0 model too
    ]
    st.subheader("Win rate by round")
    if not rows:
        st.caption("No model has been evaluated yet.")
        return
    chart = estimates_by_round(
        pd.DataFrame(rows), "Win rate, a tie being half", reference=0.5, domain=(0, 1)
    )
    st.altair_chart(chart, width="stretch")


def show_agreement(states: Sequence[RoundState]) -> None:
    """Krippendorff's alpha of each question in each round."""
    rows = [
        {"round": state.round} | estimate_row(QUESTIONS.get(question, question), alpha)
        for state in states
        for question, alpha in state.agreement.items()
        if alpha and alpha["value"] is not None
    ]
    st.subheader("Agreement by round")
    if not rows:
        st.caption("Nothing has been judged yet.")
        return
    chart = estimates_by_round(pd.DataFrame(rows), "Krippendorff's alpha", domain=(-0.2, 1))
    st.altair_chart(chart, width="stretch")


def show_what_exists(states: Sequence[RoundState]) -> None:
    """A row a round, a column a step: the newest run, and how many there are."""
    st.subheader("What exists")
    columns: dict[str, list[str]] = {"round": [str(state.round) for state in states]}
    for step in (*SOURCES, *STEPS):
        columns[step] = [_newest(state.runs.get(step, [])) for state in states]
    table = pd.DataFrame(columns)
    used = [name for name in table if name == "round" or table[name].any() or name in STEPS]
    st.dataframe(table[used], hide_index=True, width="stretch")


def _newest(run_ids: Sequence[str]) -> str:
    if not run_ids:
        return ""
    more = f"  (+{len(run_ids) - 1})" if len(run_ids) > 1 else ""
    return run_ids[-1].rpartition("-")[2] + more


def show_pairs(states: Sequence[RoundState]) -> None:
    """What each round's build kept and dropped, by rule."""
    built = [state for state in states if state.pairs]
    if not built:
        return
    st.subheader("Pairs kept and dropped")
    rules = list(dict.fromkeys(rule for state in built for rule in state.pairs["dropped"]))
    st.dataframe(
        pd.DataFrame(
            [
                {
                    "Round": str(state.round),
                    "Pairs": state.pairs["pairs"],
                    "Kept": state.pairs["kept"],
                    **{f"Dropped: {r}": state.pairs["dropped"].get(r, 0) for r in rules},
                    "Quarantined": state.pairs["quarantined"],
                }
                for state in built
            ]
        ),
        hide_index=True,
        width="stretch",
    )


def show() -> None:
    """The page."""
    st.title("Rounds")
    states = rounds(open_project())
    show_next(states)
    show_latest(states)
    won, agreed = st.columns(2, gap="large")
    with won:
        show_win_rates(states)
    with agreed:
        show_agreement(states)
    show_pairs(states)
    show_what_exists(states)


show()
