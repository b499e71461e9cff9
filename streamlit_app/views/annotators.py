"""Agreement and annotators: what the judge and pull runs recorded of the people."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from align.card import simulated
from annotate.errors import HandloomError
from annotate.judge import pulls_of
from annotate.runs import Run
from streamlit_app.charts import estimates, kappa_grid
from streamlit_app.data import estimate_row, kappas, of_step, open_project, readable_runs
from streamlit_app.plain import QUESTIONS, estimate_in_words, show_error, show_next
from streamlit_app.tables import answers_by_annotator

# Annotators up to which every two are shown in a grid; a table takes over above.
MAX_GRID = 20


def show_summary(run: Run) -> None:
    """The figures that a judge run rests on."""
    found = run.metrics
    for column, (name, number) in zip(
        st.columns(4),
        {
            "Pairs judged": found["pairs"],
            "Votes": found["votes"],
            "Annotators": len(found["annotators"]),
            "Items without a vote": found["items_without_vote"],
        }.items(),
        strict=True,
    ):
        column.metric(name, f"{number:,}", border=True)


def show_agreement(run: Run) -> None:
    """Alpha and raw agreement of each question, with their intervals."""
    st.subheader("Agreement")
    found: dict[str, dict[str, Any]] = run.metrics["agreement"]
    named = {QUESTIONS.get(question, question): of for question, of in found.items()}
    alpha, raw = st.columns(2, gap="large")
    with alpha:
        st.caption("Krippendorff's alpha: 1 is agreement, 0 is chance")
        rows = pd.DataFrame([estimate_row(name, of["alpha"]) for name, of in named.items()])
        st.altair_chart(estimates(rows, "alpha, 95 % interval", domain=(-0.2, 1)), width="stretch")
    with raw:
        st.caption("Raw agreement: the share of answer pairs that are the same")
        rows = pd.DataFrame([estimate_row(name, of["raw"]) for name, of in named.items()])
        st.altair_chart(estimates(rows, "share, 95 % interval", domain=(0, 1)), width="stretch")
    st.dataframe(
        pd.DataFrame(
            {
                "Question": list(named),
                "Level": [of["level"] for of in named.values()],
                "Alpha": [estimate_in_words(of["alpha"]) for of in named.values()],
                "Raw agreement": [estimate_in_words(of["raw"]) for of in named.values()],
                "Items": [of["items"] for of in named.values()],
                "Answers": [of["answers"] for of in named.values()],
            }
        ),
        hide_index=True,
        width="stretch",
    )


def show_annotators(run: Run) -> None:
    """Each annotator: how much they answered, and how often they are believed to be right."""
    st.subheader("Annotators")
    people: dict[str, dict[str, Any]] = run.metrics["annotators"]
    answers = answers_by_annotator(pulls_of(run))
    names = sorted({*people, *answers})
    table = pd.DataFrame(
        {
            "Annotator": names,
            "Submitted": [answers.get(name, {}).get("submitted", 0) for name in names],
            "Drafts": [answers.get(name, {}).get("draft", 0) for name in names],
            "Discarded": [answers.get(name, {}).get("discarded", 0) for name in names],
            "Votes": [people.get(name, {}).get("votes") for name in names],
            "Accuracy": [people.get(name, {}).get("accuracy") for name in names],
            "Reliability": [people.get(name, {}).get("reliability") for name in names],
        }
    )
    share = st.column_config.ProgressColumn
    st.dataframe(
        table.sort_values("Reliability", na_position="last"),
        hide_index=True,
        width="stretch",
        column_config={
            "Accuracy": share(
                help="How often the annotator is believed to be right",
                format="%.2f",
                min_value=0,
                max_value=1,
            ),
            "Reliability": share(
                help="Accuracy above chance: 0 is a coin, 1 is always right",
                format="%.2f",
                min_value=0,
                max_value=1,
            ),
        },
    )
    made_up = len(simulated(names))
    st.caption(
        f"Estimated by {run.manifest['settings']['method']}; the least reliable on top."
        + (f" {made_up} of these {len(names)} annotators are simulated." if made_up else "")
    )


def show_kappas(run: Run) -> None:
    """Cohen's kappa of every two annotators on one question."""
    st.subheader("Every two annotators")
    questions = list(run.metrics["agreement"])
    question = st.segmented_control(
        "Question",
        questions,
        default=questions[0],
        format_func=lambda name: QUESTIONS.get(name, name),
        key="question",
        bind="query-params",
        required=True,
    )
    pairs = pd.DataFrame(kappas(run, question))
    defined = pairs.dropna(subset=["value"]) if len(pairs) else pairs
    if not len(defined):
        st.caption("No two annotators answered the same items.")
    elif len({*defined["first"], *defined["second"]}) <= MAX_GRID:
        st.altair_chart(kappa_grid(defined), width="content")
    else:
        st.caption("The lowest on top.")
        st.dataframe(
            defined.sort_values("value").drop(columns="series"), hide_index=True, lazy=True
        )


def show() -> None:
    """The page."""
    st.title("Agreement and annotators")
    runs = of_step(readable_runs(open_project())[0], "judge")
    if not runs:
        show_next(
            "Nothing has been judged yet. When people have answered in Argilla:",
            "handloom pull",
            "handloom judge",
        )
        return
    by_id = {run.id: run for run in runs}
    run = by_id[st.selectbox("Judged in", list(by_id), key="run", bind="query-params")]
    for part in (show_summary, show_agreement, show_annotators, show_kappas):
        try:
            part(run)
        except HandloomError as error:
            show_error(error)


show()
