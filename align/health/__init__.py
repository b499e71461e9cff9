"""Say in words when a training goes wrong, from what it logged and what its model writes.

A rule is a small object with thresholds, the reason for them and a remedy; a call looks at the log
(`examine.RULES`) or at generated texts (`texts.TEXT_RULES`) and gives a verdict. All of them go by
medians and by lines that single points do not bend, and by an interval where there is one, so that
short and noisy trainings are not flagged; where the points are too few the verdict says so.

`handloom health`, the dashboard, and `watch.HealthWatch` while a training runs show the same
verdicts.
"""

from align.health.examine import RULES, Health, examine, health
from align.health.log import TrainingLog, log_of_entries, log_path, newest_training, read_log
from align.health.rule import Rule, Verdict
from align.health.texts import TEXT_RULES

__all__ = [
    "RULES",
    "TEXT_RULES",
    "Health",
    "Rule",
    "TrainingLog",
    "Verdict",
    "examine",
    "health",
    "log_of_entries",
    "log_path",
    "newest_training",
    "read_log",
]
