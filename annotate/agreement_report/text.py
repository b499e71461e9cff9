"""An agreement report as the terminal's table and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from annotate.agreement import Figure, Interval

if TYPE_CHECKING:
    from annotate.agreement_report.report import AgreementReport, Measured

# Rows of a long list in the text; the JSON has all.
SHOWN = 15
# Labels up to which the confusion is printed as a grid.
GRID = 12

HEADER = (
    "figure", "value", "95 %: these annotators", "95 %: annotators like these",
    "items", "pairable", "annotators",
)  # fmt: skip

Row = Sequence[str]


def terminal_lines(measured: Measured) -> list[str]:
    """Everything measured as lines for a terminal."""
    lines = [printable(measured.source)]
    for name, report in measured.questions.items():
        lines += ["", f"{printable(name)} ({about(report)})"]
        for title, header, rows in parts(report):
            lines += [f"  {title}"] if title else []
            lines += [f"  {line}" for line in columns(header, rows)]
        lines += [f"  {printable(line)}" for line in remarks(report)]
    lines += ["", *(f"  {line}" for line in notes(measured.questions.values()))]
    return lines + set_aside(measured.quarantine, measured.merged)


def markdown_lines(measured: Measured) -> list[str]:
    """Everything measured as lines of Markdown, to be pasted into a report or an issue."""
    lines = [f"# Agreement: {escaped(measured.source)}"]
    for name, report in measured.questions.items():
        lines += ["", f"## {escaped(name)}", "", escaped(about(report))]
        for title, header, rows in parts(report):
            lines += ["", *([f"**{title}**", ""] if title else []), *pipes(header, rows)]
        if without := remarks(report):
            lines += ["", *(f"- {escaped(line)}" for line in without)]
    lines += ["", "## What the figures mean", ""]
    lines += [f"- {escaped(line)}" for line in notes(measured.questions.values())]
    aside = set_aside(measured.quarantine, measured.merged)
    return lines + (["", *(f"- {escaped(line)}" for line in aside)] if aside else [])


def about(report: AgreementReport) -> str:
    """What a report rests on, as in "rating under quality@v1: 9 answers to 3 items by 3 …"."""
    under = f" under {' and '.join(report.guidelines)}" if report.guidelines else ""
    return (
        f"{report.kind}{under}: {report.answers:,} answers to {report.items:,} items "
        f"by {report.annotators:,} annotators"
    )


def parts(report: AgreementReport) -> Iterator[tuple[str, Row, list[Row]]]:
    """The report's tables: title, header, rows."""
    yield "", HEADER, _figure_rows(report.figures)
    if _has_baseline(report):
        yield "beside it, the longer text wins", HEADER, _figure_rows(report.baseline)
    if report.per_label:
        title = "Krippendorff's alpha of each label, given or not"
        yield title, HEADER, cut(_figure_rows(report.per_label))
    if report.people:
        people: list[Row] = [
            (one.annotator, str(one.offset), str(one.scale)) for one in report.people
        ]
        yield "each annotator's scale", ("annotator", "offset", "scale"), cut(people)
    if any(map(any, report.confusion)) and len(_used(report)) <= GRID:
        yield "one said the row's, another the column's", ("", *_used(report)), _grid(report)
    if report.kappas:
        pairs: list[Row] = [
            (f"{pair.first} – {pair.second}", str(pair.kappa), f"{pair.agreement:.3f}")
            for pair in report.kappas
        ]
        yield "every two annotators", ("annotators", "Cohen's kappa", "raw agreement"), cut(pairs)


def _used(report: AgreementReport) -> list[str]:
    return [name for name, count in report.classes.items() if count]


def _grid(report: AgreementReport) -> list[Row]:
    """The confusion of the labels that somebody gave."""
    counts = zip(report.classes.items(), report.confusion, strict=True)
    columns = [at for at, count in enumerate(report.classes.values()) if count]
    return [(name, *(f"{row[at]:,}" for at in columns)) for (name, used), row in counts if used]


def _figure_rows(figures: Mapping[str, Figure]) -> list[Row]:
    return [figure_row(name, figure) for name, figure in figures.items()]


def figure_row(name: str, figure: Figure) -> Row:
    """A figure as a row under `HEADER`; its reason where it has no value."""
    counts = (f"{figure.n_items:,}", f"{figure.n_pairable:,}", f"{figure.n_annotators:,}")
    if figure.value is None:
        return (name, f"undefined: {figure.reason}", "", "", *counts)
    intervals = (_ends(figure.over_items), _ends(figure.over_annotators))
    return (name, f"{figure.value:z.3f}", *intervals, *counts)


def _ends(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "none"
    return f"[{interval.low:z.3f}, {interval.high:z.3f}]"


def remarks(report: AgreementReport) -> list[str]:
    """What nobody said, why there is no baseline, why figures with a value lack an interval."""
    unused = [name for name, count in report.classes.items() if not count]
    lines = [f"given by nobody: {', '.join(unused)}"] if unused else []
    if not _has_baseline(report):
        lines.append(f"the longer text wins: undefined: {_first(report.baseline).reason}")
    lacking: dict[str, list[str]] = {}
    for name, figure in (report.figures | report.baseline | report.per_label).items():
        for interval in (figure.over_items, figure.over_annotators):
            if figure.value is not None and interval.low is None:
                reason = f"no interval over {interval.over} ({interval.reason})"
                lacking.setdefault(reason, []).append(name)
    for reason, names in lacking.items():
        more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
        lines.append(f"{reason}: {', '.join(names[:SHOWN])}{more}")
    return lines


def _has_baseline(report: AgreementReport) -> bool:
    return any(figure.value is not None for figure in report.baseline.values())


def _first(figures: Mapping[str, Figure]) -> Figure:
    return next(iter(figures.values()))


def notes(reports: Iterable[AgreementReport]) -> list[str]:
    """What each figure means, said once, and how the intervals were made."""
    said: dict[str, None] = {}
    methods: dict[str, None] = {}
    for report in reports:
        every = report.figures | (report.baseline if _has_baseline(report) else {})
        said |= dict.fromkeys(figure.definition for figure in every.values())
        methods |= {
            f"Intervals: {figure.method}, seed {figure.seed}": None
            for figure in every.values()
            if figure.value is not None
        }
    return [*said, *methods]


def cut(rows: list[Row]) -> list[Row]:
    """The first rows, and how many more the JSON has."""
    if len(rows) <= SHOWN:
        return rows
    rest = f"… {len(rows) - SHOWN:,} more with `--json`"
    return [*rows[:SHOWN], (rest, *("" for _ in rows[0][1:]))]


def columns(header: Row, rows: Sequence[Row]) -> list[str]:
    """A table with aligned columns: names to the left, what is a figure to the right.

    What stands where a figure would, a reason, may run into the empty columns after it.
    """
    table = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [
        max((len(row[at]) for row in table if not _is_reason(row, at)), default=0)
        for at in range(len(header))
    ]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if at == 0 or _is_reason(row, at) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _is_reason(row: Sequence[str], at: int) -> bool:
    return row[at].startswith(("undefined:", "…"))


def pipes(header: Row, rows: Sequence[Row]) -> list[str]:
    """A table in Markdown."""
    rule = "|---|" + "---:|" * (len(header) - 1)
    head, *body = ("| " + " | ".join(map(escaped, row)) + " |" for row in (header, *rows))
    return [head, rule, *body]


def printable(text: str) -> str:
    """A name as a terminal may have it: no control character of a file's reaches it."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def escaped(text: str) -> str:
    """A text as Markdown shows it: on one line, without markup and without a cell's border."""
    line = " ".join(printable(text).split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#" else char for char in line)


def set_aside(quarantine: Sequence[Mapping[str, Any]], merged: int) -> list[str]:
    """What became of a file's other rows, in words; empty where all were used."""
    lines = [f"{merged:,} repeated rows counted once"] if merged else []
    if quarantine:
        lines.append(f"{len(quarantine):,} rows set aside:")
        lines += [f"  line {row['line']}: {row['reason']}" for row in quarantine[:SHOWN]]
    if len(quarantine) > SHOWN:
        lines.append(f"  … {len(quarantine) - SHOWN:,} more with `--json`")
    return lines
