"""Annotators: what the judge and pull runs recorded of the people."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from align.card import simulated
from annotate.errors import HandloomError
from annotate.judge import pulls_of
from annotate.runs import Run
from streamlit_app.charts import estimates
from streamlit_app.choosing import choose_judge_run
from streamlit_app.data import estimate_row
from streamlit_app.people import flag_lines, missing, people_table, recorded_annotators
from streamlit_app.plain import QUESTIONS, escaped, show_error
from streamlit_app.tables import answers_by_annotator

# People shown in the chart, the least accurate; the table has all.
MAX_CHART = 40


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


def show_annotators(run: Run) -> None:
    """Each annotator: how much they answered, and how often they are believed to be right."""
    st.subheader("What they answered")
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


def show_flags(run: Run) -> None:
    """Who stands out, and by which test."""
    st.subheader("Who stands out")
    found = recorded_annotators(run)
    tests = sum(test["p"] is not None for test in found["tests"])
    lines = flag_lines(found)
    for line in lines:
        st.text(line)
    st.caption(
        f"{len(lines)} of {tests:,} tests. All tests are controlled together (Benjamini–Hochberg, "
        f"{found['level']:.0%}); nobody is flagged with fewer than {found['min_labels']} labels, "
        "nor for speed."
    )
    if lines:
        st.caption("To show somebody no items for a while, when you have talked:")
        st.code("handloom users pause NAME", language=None)


def show_figures(run: Run) -> None:
    """Every figure of every person, with its interval."""
    st.subheader("How each annotator judges")
    for panel in recorded_annotators(run)["panels"]:
        version = f", {escaped(panel['guideline'])}" if panel["guideline"] else ""
        question = QUESTIONS.get(panel["question"], escaped(panel["question"]))
        st.markdown(f"**{question}**{version}")
        accuracy = [
            estimate_row(person["annotator"], person["figures"]["accuracy"])
            for person in panel["people"]
            if person["figures"]["accuracy"]["value"] is not None
        ]
        if accuracy:
            st.altair_chart(
                estimates(
                    pd.DataFrame(accuracy[:MAX_CHART]),
                    "accuracy, one's own vote not deciding, 95 % interval",
                    domain=(0, 1),
                ),
                width="stretch",
            )
        st.dataframe(people_table(panel), hide_index=True, width="stretch")
        st.caption("Percent with 95 % intervals; the least accurate on top.")
        for line in missing(panel):
            st.caption(f"No figure for {escaped(line)}")


def show() -> None:
    """The page."""
    st.title("Annotators")
    run = choose_judge_run()
    if run is None:
        return
    for part in (show_summary, show_flags, show_figures, show_annotators):
        try:
            part(run)
        except HandloomError as error:
            show_error(error)


show()
