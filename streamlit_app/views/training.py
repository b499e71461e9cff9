"""Training curves: loss, reward margins and accuracy of one run or of several."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from annotate.errors import HandloomError
from annotate.runs import Run
from streamlit_app.charts import curves
from streamlit_app.data import of_step, open_project, readable_runs, training_log
from streamlit_app.plain import escaped, show_error, show_next

# Measures shown at once, where a run logged them; the others can be chosen.
FIRST = {
    "loss": "Loss",
    "rewards/margins": "Reward margin, chosen over rejected",
    "rewards/accuracies": "Reward accuracy: chosen above rejected",
    "margin": "Reward margin, chosen over rejected",
    "accuracy": "Reward accuracy: chosen above rejected",
    "mean_token_accuracy": "Token accuracy",
}
# Runs shown until others are chosen.
SHOWN_RUNS = 3


def read_logs(runs: list[Run]) -> pd.DataFrame:
    """The logs of the runs below each other; of one that cannot be read, the reason is shown."""
    logs = []
    for run in runs:
        try:
            logs.append(training_log(run).assign(series=run.id))
        except HandloomError as error:
            show_error(error)
    columns = ["step", "name", "measured_on", "value", "series"]
    return pd.concat(logs, ignore_index=True) if logs else pd.DataFrame(columns=columns)


def show_curves(log: pd.DataFrame) -> None:
    """The charts, two beside each other: what matters first, then what was asked for."""
    logged = list(dict.fromkeys(log["name"]))
    others = [name for name in logged if name not in FIRST]
    wanted = st.multiselect("Also show", others, key="also", bind="query-params")
    names = [name for name in FIRST if name in logged] + wanted
    columns = st.columns(2, gap="large")
    for number, name in enumerate(names):
        with columns[number % 2]:
            st.subheader(FIRST.get(name) or escaped(name))
            st.altair_chart(curves(log[log["name"] == name]), width="stretch")


def show_settings(runs: list[Run]) -> None:
    """What each run was trained with, from its manifest."""
    for run in runs:
        with st.expander(run.id):
            st.json(run.manifest["settings"], expanded=1)


def show() -> None:
    """The page."""
    st.title("Training curves")
    runs = of_step(readable_runs(open_project())[0], "train")
    if not runs:
        show_next("No model has been trained yet:", "handloom train RECIPE")
        return
    by_id = {run.id: run for run in runs}
    chosen = st.multiselect(
        "Runs", list(by_id), default=list(by_id)[:SHOWN_RUNS], key="runs", bind="query-params"
    )
    if not chosen:
        st.caption("Choose a run.")
        return
    log = read_logs([by_id[run_id] for run_id in chosen])
    if log.empty:
        st.caption("These runs logged nothing.")
    else:
        show_curves(log)
    show_settings([by_id[run_id] for run_id in chosen])


show()
