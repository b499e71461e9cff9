"""Charts, each of which shows a figure with its interval or a curve; they compute nothing."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

# Colours that stay apart for colour-blind readers (Wong 2011, Nature Methods 8:441), dark first.
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6b6b6b"]
# What `alt.layer` returns.
Layers = alt.LayerChart | alt.FacetChart

GRID, AXIS, RULE = "#e3e7ed", "#5b6675", "#9aa5b3"


def estimates_by_round(
    rows: pd.DataFrame, title: str, *, reference: float | None = None, domain: tuple[float, float]
) -> Layers:
    """Figures over the rounds, each as a point with its interval.

    Args:
        rows: columns round, series, value, low, high, n; low and high may be missing.
        title: of the vertical axis.
        reference: a level to draw a dashed line at, such as a coin's 0.5.
        domain: of the vertical axis.
    """
    x = alt.X("round:O", title="Round", axis=alt.Axis(labelAngle=0))
    offset = alt.XOffset("series:N", sort=None)
    base = alt.Chart(rows).encode(x=x, xOffset=offset, color=_series_color(), tooltip=_tooltip())
    scale = alt.Scale(domain=list(domain), clamp=True)
    bars = base.mark_rule(strokeWidth=2.5).encode(
        y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q"
    )
    points = base.mark_point(filled=True, size=90, opacity=1).encode(y=alt.Y("value:Q"))
    labels = base.mark_text(align="left", dx=9, fontSize=12).encode(
        y="value:Q", text=alt.Text("value:Q", format=".3f")
    )
    layers: list[Any] = [bars, points, labels]
    if reference is not None:
        line = alt.Chart(pd.DataFrame({"y": [reference]})).mark_rule(color=RULE, strokeDash=[5, 4])
        layers.insert(0, line.encode(y="y:Q"))
    return _styled(alt.layer(*layers), 300)


def estimates(rows: pd.DataFrame, title: str, *, domain: tuple[float, float]) -> Layers:
    """Figures one below the other, each as a point with its interval.

    Args:
        rows: columns series, value, low, high, n.
        title: of the horizontal axis.
        domain: of the horizontal axis.
    """
    y = alt.Y("series:N", title=None, sort=list(rows["series"]))
    base = alt.Chart(rows).encode(y=y, tooltip=_tooltip())
    scale = alt.Scale(domain=list(domain), clamp=True)
    bars = base.mark_rule(strokeWidth=2.5, color=COLORS[0]).encode(
        x=alt.X("low:Q", title=title, scale=scale), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=90, opacity=1, color=COLORS[0]).encode(x="value:Q")
    return _styled(alt.layer(bars, points), 70 + 36 * len(rows))


def two_intervals(rows: pd.DataFrame, title: str, *, domain: tuple[float, float]) -> Layers:
    """Figures one below the other, each with a wide and a narrow interval.

    Args:
        rows: columns series, value, low, high, low_others, high_others, n.
        title: of the horizontal axis.
        domain: of the horizontal axis.
    """
    y = alt.Y("series:N", title=None, sort=list(rows["series"]))
    tooltip = [
        *_tooltip(),
        alt.Tooltip("low_others:Q", title="others like these, from", format=".3f"),
        alt.Tooltip("high_others:Q", title="to", format=".3f"),
    ]
    base = alt.Chart(rows).encode(y=y, tooltip=tooltip)
    scale = alt.Scale(domain=list(domain), clamp=True)
    wide = base.mark_rule(strokeWidth=1.5, color=COLORS[4]).encode(
        x=alt.X("low_others:Q", title=title, scale=scale), x2="high_others:Q"
    )
    narrow = base.mark_rule(strokeWidth=4, color=COLORS[0]).encode(x="low:Q", x2="high:Q")
    points = base.mark_point(filled=True, size=90, opacity=1, color=COLORS[0]).encode(x="value:Q")
    return _styled(alt.layer(wide, narrow, points), 70 + 36 * len(rows))


def kappa_grid(rows: pd.DataFrame) -> Layers:
    """Cohen's kappa of every two annotators, as a coloured grid with the numbers in it.

    Args:
        rows: columns first, second, value, low, high, n; each pair once in either order.
    """
    names = sorted({*rows["first"], *rows["second"]})
    mirrored = rows.rename(columns={"first": "second", "second": "first"})
    both = pd.concat([rows, mirrored], ignore_index=True)
    base = alt.Chart(both).encode(
        x=alt.X("first:N", title=None, sort=names, axis=alt.Axis(labelAngle=0, orient="top")),
        y=alt.Y("second:N", title=None, sort=names),
        tooltip=[
            alt.Tooltip("first:N", title="Annotator"),
            alt.Tooltip("second:N", title="and"),
            *_tooltip()[1:],
        ],
    )
    color = alt.Color(
        "value:Q",
        scale=alt.Scale(domain=[-0.2, 1], range=["#f4efe6", "#7fb2d3", "#0b4f7d"], clamp=True),
        legend=alt.Legend(title="kappa"),
    )
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(color=color)
    dark = alt.condition("datum.value > 0.6", alt.value("white"), alt.value("#1c2430"))
    numbers = base.mark_text(fontSize=12).encode(text=alt.Text("value:Q", format=".3f"), color=dark)
    # Streamlit fits labels and legend into the width too, so they are allowed for.
    longest = 8 * max(map(len, names))
    width = max(64, longest) * len(names) + longest + 90
    grid: Layers = alt.layer(cells, numbers).properties(width=width)
    return _styled(grid, 60 + 40 * len(names))


def confusion_grid(rows: pd.DataFrame, names: list[str]) -> Layers:
    """How often two annotators of one item said two labels, as a coloured grid of counts.

    Args:
        rows: columns row, column, pairs.
        names: the labels in their order.
    """
    base = alt.Chart(rows).encode(
        x=alt.X("column:N", title=None, sort=names, axis=alt.Axis(labelAngle=0, orient="top")),
        y=alt.Y("row:N", title=None, sort=names),
        tooltip=[
            alt.Tooltip("row:N", title="One said"),
            alt.Tooltip("column:N", title="another"),
            alt.Tooltip("pairs:Q", title="pairs of annotators", format=","),
        ],
    )
    most = float(rows["pairs"].max())
    color = alt.Color(
        "pairs:Q", scale=alt.Scale(domain=[0, most], range=["#f4efe6", "#0b4f7d"]), legend=None
    )
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(color=color)
    dark = alt.condition(f"datum.pairs > {most * 0.6}", alt.value("white"), alt.value("#1c2430"))
    numbers = base.mark_text(fontSize=12).encode(text=alt.Text("pairs:Q", format=","), color=dark)
    longest = 8 * max(map(len, names))
    width = max(72, longest) * len(names) + longest
    grid: Layers = alt.layer(cells, numbers).properties(width=width)
    return _styled(grid, 60 + 40 * len(names))


def curves(rows: pd.DataFrame, since: int | None = None) -> Layers:
    """A quantity over training steps: a line for each run, dashed where it was evaluated.

    Args:
        rows: columns step, value, series, measured_on ("training" or "evaluation").
        since: a step to mark with an upright line.
    """
    evaluated = "evaluation" in set(rows["measured_on"])
    dash = alt.StrokeDash(
        "measured_on:N",
        scale=alt.Scale(domain=["training", "evaluation"], range=[[1, 0], [5, 4]]),
        legend=alt.Legend(title=None, orient="bottom", symbolType="stroke") if evaluated else None,
    )
    base = alt.Chart(rows).encode(
        x=alt.X("step:Q", title="Step"),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
        color=_series_color(),
        tooltip=[
            alt.Tooltip("series:N", title="Run"),
            alt.Tooltip("measured_on:N", title="Measured on"),
            alt.Tooltip("step:Q", title="Step"),
            alt.Tooltip("value:Q", title="Value", format=".4g"),
        ],
    )
    line = base.mark_line(strokeWidth=2).encode(strokeDash=dash)
    # Without points, a run that logged once would show nothing.
    points = base.mark_point(filled=True, size=22, opacity=0.9)
    layers: list[Any] = [line, points]
    if since is not None:
        mark = alt.Chart(pd.DataFrame({"step": [since]})).mark_rule(color=RULE, strokeDash=[5, 4])
        layers.insert(0, mark.encode(x="step:Q"))
    return _styled(alt.layer(*layers), 280)


def _series_color() -> alt.Color:
    return alt.Color(
        "series:N",
        title=None,
        sort=None,
        scale=alt.Scale(range=COLORS),
        legend=alt.Legend(orient="top", labelLimit=420),
    )


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("series:N", title="Of"),
        alt.Tooltip("value:Q", title="Value", format=".3f"),
        alt.Tooltip("low:Q", title="95 % from", format=".3f"),
        alt.Tooltip("high:Q", title="95 % to", format=".3f"),
        alt.Tooltip("n:Q", title="n", format=","),
    ]


def _styled(chart: Layers, height: int) -> Layers:
    axis = alt.AxisConfig(
        gridColor=GRID,
        domainColor=RULE,
        tickColor=RULE,
        labelColor=AXIS,
        titleColor=AXIS,
        labelFontSize=12,
        titleFontSize=12,
        titleFontWeight=500,
        labelLimit=260,
        labelFlush=False,
        labelBound=False,
    )
    styled: Layers = chart.properties(
        height=height, config=alt.Config(view=alt.ViewConfig(stroke=None), axis=axis)
    )
    return styled


def trials(rows: pd.DataFrame, field: str, figure: str, *, logarithmic: bool) -> Layers:
    """A sweep's trials by the value of one field, each as a point.

    Args:
        rows: columns value, figure, state, number, run.
        field: title of the horizontal axis.
        figure: title of the vertical axis.
        logarithmic: scale of the horizontal axis, where values are numbers.
    """
    numbers = pd.api.types.is_numeric_dtype(rows["value"])
    scale = alt.Scale(type="log" if logarithmic else "linear", zero=False, nice=False)
    x = alt.X("value:Q", title=field, scale=scale) if numbers else alt.X("value:N", title=field)
    points = alt.Chart(rows).mark_point(filled=True, size=90, opacity=0.85)
    y = alt.Y("figure:Q", title=figure, scale=alt.Scale(zero=False))
    color = alt.Color("state:N", title=None, scale=alt.Scale(range=COLORS[:3]))
    shown = ["number:Q", "value", "figure:Q", "state:N", "run:N"]
    return _styled(alt.layer(points.encode(x=x, y=y, color=color, tooltip=shown)), 260)


def shares(rows: pd.DataFrame, title: str) -> Layers:
    """Shares of a whole as bars, one below the other; columns name and share, 0 to 1."""
    y = alt.Y("name:N", title=None, sort=list(rows["name"]))
    x = alt.X("share:Q", title=title, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    bars = alt.Chart(rows).mark_bar(color=COLORS[0]).encode(x=x, y=y)
    return _styled(alt.layer(bars), max(80, 40 * len(rows)))
