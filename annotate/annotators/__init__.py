"""What is known of each annotator, and who stands out.

runs or a table ─▶ Panel ─▶ figures  every one with its interval or a reason
                         └▶ tests    all of a report controlled together ─▶ flags
"""

from __future__ import annotations

from annotate.annotators.figures import FIGURES
from annotate.annotators.panel import Gold, Panel, Repeats
from annotate.annotators.report import AnnotatorReport, report
from annotate.annotators.sources import annotators_of_runs, annotators_of_table
from annotate.annotators.testing import LEVEL, MEANING, MIN_LABELS, Finding, run_tests

__all__ = [
    "FIGURES",
    "LEVEL",
    "MEANING",
    "MIN_LABELS",
    "AnnotatorReport",
    "Finding",
    "Gold",
    "Panel",
    "Repeats",
    "annotators_of_runs",
    "annotators_of_table",
    "report",
    "run_tests",
]
