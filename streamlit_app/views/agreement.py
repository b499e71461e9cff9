"""Agreement: how far people agree on each question, as the judge run recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from annotate.errors import HandloomError
from annotate.runs import Run
from streamlit_app.charts import confusion_grid, kappa_grid, two_intervals
from streamlit_app.choosing import choose_judge_run
from streamlit_app.data import (
    agreement,
    figure_rows,
    kappas,
)
from streamlit_app.plain import (
    QUESTIONS,
    escaped,
    estimate_in_words,
    interval_in_words,
    show_error,
    show_next,
)

# Annotators, or labels, up to which every two are shown in a grid; a table takes over above.
MAX_GRID = 20

Report = Mapping[str, Any]


def show_about(report: Report) -> None:
    """What the report rests on."""
    counts = {
        "Answers": report["answers"],
        "Items": report["items"],
        "Annotators": report["annotators"],
    }
    for column, (name, number) in zip(st.columns(3), counts.items(), strict=True):
        column.metric(name, f"{number:,}", border=True)
    under = f", under {escaped(report['guideline'])}" if report["guideline"] else ""
    method = next(
        (f"Intervals: {of['method']}, seed {of['seed']}." for of in report["figures"].values()
         if of["value"] is not None), ""
    )  # fmt: skip
    st.caption(f"A {escaped(report['kind'])} question{under}. {escaped(method)}")


def show_figures(title: str, figures: Mapping[str, Report]) -> None:
    """Figures with both intervals, as a chart and as a table with their reasons."""
    st.subheader(title)
    rows = pd.DataFrame(figure_rows(figures))
    defined = rows.dropna(subset=["value"])
    if len(defined):
        lowest = min(-0.2, *defined["value"])
        st.altair_chart(
            two_intervals(defined, "95 %: thick, these annotators; thin, annotators like these",
                          domain=(lowest, 1)),
            width="stretch",
        )  # fmt: skip
    st.dataframe(
        pd.DataFrame(
            {
                "Figure": list(figures),
                "Value": [_value(of) for of in figures.values()],
                "These annotators": [
                    interval_in_words(of["over_items"]) for of in figures.values()
                ],
                "Annotators like these": [
                    interval_in_words(of["over_annotators"]) for of in figures.values()
                ],
                "Items": [of["n_items"] for of in figures.values()],
                "Pairable": [of["n_pairable"] for of in figures.values()],
                "Annotators": [of["n_annotators"] for of in figures.values()],
                "Definition": [of["definition"] for of in figures.values()],
            }
        ),
        hide_index=True,
        width="stretch",
    )


def _value(figure: Report) -> str:
    if figure["value"] is None:
        return f"undefined ({figure['reason']})"
    return f"{figure['value']:z.3f}"


def show_labels(report: Report) -> None:
    """Of a multi-label question: each label's headline figure."""
    if not report["per_label"]:
        return
    show_figures("Each label, given or not", report["per_label"])


def show_people(report: Report) -> None:
    """Of a rating: where each person's ratings lie among the others'."""
    if not report["people"]:
        return
    st.subheader("Each annotator's scale")
    st.caption(
        "Offset: how much higher they rate than the others on the same items. "
        "Scale: how widely they spread their ratings, 1 being as widely as the others."
    )
    st.dataframe(
        pd.DataFrame(
            {
                "Annotator": [person["annotator"] for person in report["people"]],
                "Offset": [estimate_in_words(person["offset"]) for person in report["people"]],
                "Scale": [estimate_in_words(person["scale"]) for person in report["people"]],
            }
        ),
        hide_index=True,
        width="stretch",
    )


def show_confusion(report: Report) -> None:
    """How often two annotators of one item said one label and another."""
    names = list(report["classes"])
    if not report["confusion"] or len(names) > MAX_GRID:
        return
    st.subheader("What is confused with what")
    st.caption("Pairs of annotators of one item: one said the row's label, the other the column's.")
    rows = [
        {"row": row, "column": column, "pairs": count}
        for row, counts in zip(names, report["confusion"], strict=True)
        for column, count in zip(names, counts, strict=True)
    ]
    st.altair_chart(confusion_grid(pd.DataFrame(rows), names), width="content")


def show_kappas(run: Run, question: str) -> None:
    """Cohen's kappa of every two annotators."""
    pairs = pd.DataFrame(kappas(run, question))
    defined = pairs.dropna(subset=["value"]) if len(pairs) else pairs
    st.subheader("Every two annotators")
    if not len(defined):
        st.caption("No kappa of two annotators is defined on this question.")
    elif len({*defined["first"], *defined["second"]}) <= MAX_GRID:
        st.altair_chart(kappa_grid(defined), width="content")
    else:
        st.caption("The lowest on top.")
        st.dataframe(
            defined.sort_values("value").drop(columns="series"), hide_index=True, lazy=True
        )


def show_run(run: Run) -> None:
    """One question of a judge run."""
    recorded = agreement(run)
    question = st.segmented_control(
        "Question",
        list(recorded),
        default=next(iter(recorded)),
        format_func=lambda name: QUESTIONS.get(name, escaped(name)),
        key="question",
        bind="query-params",
        required=True,
    )
    report = recorded[question]
    if "figures" not in report:
        show_next("This was judged before figures had two intervals.", "handloom judge --again")
        return
    show_about(report)
    show_figures("Figures", report["figures"])
    show_figures("Beside it: the longer text wins", report["baseline"])
    show_labels(report)
    show_people(report)
    show_confusion(report)
    if report["kappas"]:
        show_kappas(run, question)


def show() -> None:
    """The page."""
    st.title("Agreement")
    run = choose_judge_run()
    if run is None:
        return
    try:
        show_run(run)
    except HandloomError as error:
        show_error(error)


show()
