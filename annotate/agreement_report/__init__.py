"""The agreement report: every figure of every question, with intervals and definitions.

kinds.py      which figures belong to which kind of question
report.py     one question's figures together, and all questions' as one thing
of_run.py     the answers of pull runs → reports, one a question and guideline version
of_table.py   anybody's file of labels → reports
length.py     the baseline that stands beside: how often the longer text wins
text.py       the terminal's table and the Markdown
"""

from __future__ import annotations

from annotate.agreement_report.of_run import outputs_behind, reports_of_answers
from annotate.agreement_report.of_table import (
    TableKind,
    agreement_of_table,
    read_judgeable,
    taken_as_names,
)
from annotate.agreement_report.report import (
    AgreementReport,
    Measured,
    agreement_report,
    task_of,
)
from annotate.agreement_report.text import set_aside

__all__ = [
    "AgreementReport",
    "Measured",
    "TableKind",
    "agreement_of_table",
    "agreement_report",
    "outputs_behind",
    "read_judgeable",
    "reports_of_answers",
    "set_aside",
    "taken_as_names",
    "task_of",
]
