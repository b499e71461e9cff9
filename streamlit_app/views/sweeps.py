"""Sweeps: which values of a recipe's fields were best, and which field mattered."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st

from annotate.errors import HandloomError
from annotate.runs import Run
from streamlit_app.charts import shares, trials
from streamlit_app.choosing import choose_run
from streamlit_app.data import of_step, open_project, readable_runs
from streamlit_app.plain import escaped, show_error, show_next


def show_best(run: Run) -> None:
    """The best trial, and how it is trained as a model of its own."""
    found = run.metrics
    best = found["best"]
    numbers = {
        f"Best {found['figure']}": f"{best['figure']:.4g}",
        "Trials": f"{found['trials']:,}",
        "Stopped early": f"{found['states']['stopped']:,}",
        "Failed": f"{found['states']['failed']:,}",
    }
    for column, (name, number) in zip(st.columns(4), numbers.items(), strict=True):
        column.metric(escaped(name), number, border=True)
    show_next(
        f"The best recipe is trial {best['trial']}'s.",
        f"handloom train runs/{run.id}/best.yaml",
    )


def show_fields(run: Run, rows: pd.DataFrame) -> None:
    """The figure of every trial by the value of each field."""
    figure = run.metrics["figure"]
    over = {text.partition("=")[0]: text for text in run.manifest["settings"]["over"]}
    known = rows.dropna(subset=["figure"])
    for column, key in zip(st.columns(2) * len(over), over, strict=False):
        values = [json.loads(text)[key] for text in known["values"]]
        with column:
            st.altair_chart(
                trials(
                    known.assign(value=values).drop(columns=["values", "path"]),
                    key,
                    figure,
                    logarithmic=over[key].endswith(":log"),
                ),
                width="stretch",
            )


def show_importance(run: Run) -> None:
    """How much of the figure's variance each field explains, or why that cannot be said."""
    st.subheader("What mattered")
    found = run.metrics["importance"]
    if not found:
        st.caption(f"Not known: {escaped(run.metrics['importance_reason'])}.")
        return
    bars = pd.DataFrame({"name": list(found), "share": list(found.values())})
    st.altair_chart(shares(bars, "share of the figure's variance explained"), width="stretch")
    done = run.metrics["states"]["complete"]
    st.caption(f"Functional ANOVA over a random forest on {done:,} trials that ran to their end.")


def show() -> None:
    """The page."""
    st.title("Sweeps")
    runs = of_step(readable_runs(open_project())[0], "sweep")
    if not runs:
        show_next(
            "No recipe has been searched yet:",
            "handloom sweep RECIPE --over trainer.learning_rate=1e-5..1e-3:log",
        )
        return
    run = choose_run("Sweep", runs)
    try:
        rows = run.read("trials").to_pandas()
        show_best(run)
        show_fields(run, rows)
        show_importance(run)
        st.subheader("Trials")
        st.dataframe(rows.drop(columns="path"), hide_index=True, width="stretch")
    except HandloomError as error:
        show_error(error)


show()
