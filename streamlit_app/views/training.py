"""Training curves: loss, reward margins and accuracy of one run or of several, and their health."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from align.health import Health, Verdict, health
from annotate.errors import HandloomError
from annotate.runs import Project, Run
from streamlit_app.charts import curves
from streamlit_app.data import (
    of_step,
    open_project,
    readable_runs,
    training_log,
    unfinished_trainings,
)
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


def read_logs(runs: Mapping[str, Run]) -> pd.DataFrame:
    """The logs of the runs below each other; of one that cannot be read, the reason is shown."""
    logs = []
    for run_id, run in runs.items():
        try:
            logs.append(training_log(run).assign(series=run_id))
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


def show_health(project: Project, run_id: str) -> None:
    """What is wrong with a training and what to do, each with the curve that shows it."""
    try:
        found = health(project, run_id)
    except HandloomError as error:
        show_error(error, "Its health cannot be told")
        return
    for verdict in found.flagged:
        show_finding(found, verdict)
    unsure = sum(verdict.state == "unknown" for verdict in found.verdicts)
    fine = sum(verdict.state == "fine" for verdict in found.verdicts)
    state = "" if found.finished else ", unfinished: running, interrupted or failed"
    st.caption(
        f"{escaped(run_id)}{state}: {len(found.flagged)} findings; {fine} rules found nothing, "
        f"{unsure} had too little to go by. `handloom health {run_id}` says why."
    )


def show_finding(found: Health, verdict: Verdict) -> None:
    """One thing that is wrong."""
    with st.container(border=True):
        serious = verdict.state == "serious"
        icon = ":red[:material/error:]" if serious else ":orange[:material/warning:]"
        st.markdown(f"{icon} **{escaped(verdict.rule)}** in {escaped(found.run_id)}")
        st.text(f"{verdict.said}\n{verdict.remedy}.")
        logged = [found.log.curves[name] for name in verdict.curves[:1]]
        for curve in logged:
            rows = pd.DataFrame({"step": curve.steps, "value": curve.values})
            rows = rows.assign(series=curve.name, measured_on="training")
            st.altair_chart(curves(rows, verdict.since), width="stretch")


def show_settings(runs: list[Run]) -> None:
    """What each run was trained with, from its manifest."""
    for run in runs:
        with st.expander(run.id):
            st.json(run.manifest["settings"], expanded=1)


def show() -> None:
    """The page."""
    st.title("Training curves")
    project = open_project()
    unfinished = unfinished_trainings(project)
    trained = of_step(readable_runs(project)[0], "train")
    runs = unfinished | {run.id: run for run in trained}
    if not runs:
        show_next("No model has been trained yet:", "handloom train RECIPE")
        return
    chosen = st.multiselect(
        "Runs", list(runs), default=list(runs)[:SHOWN_RUNS], key="runs", bind="query-params"
    )
    if not chosen:
        st.caption("Choose a run.")
        return
    log = read_logs({run_id: runs[run_id] for run_id in chosen})
    st.header("Health")
    for run_id in chosen:
        show_health(project, run_id)
    st.header("Curves")
    if log.empty:
        st.caption("These runs logged nothing.")
    else:
        show_curves(log)
    show_settings([run for run in trained if run.id in chosen])


show()
