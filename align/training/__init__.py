"""What every trainer does alike: resume, log, show progress, stop, save, report, in one process or
in several (align.processes).

A training is interruptible at any moment: checkpoints lie in the run's hidden folder, and the same
command goes on from the last whole one to the same result.

- fit: train to the end, and what is left in the run
- checkpoints: when they are taken, which of them are whole
- order: the same order of rows after an interruption and in several processes
- progress: the log, and the bar or the lines on stderr
- row_means: held-out figures as means over rows
- trackers: trackio, TensorBoard, MLflow, W&B
- failures: what libraries say, in one line
- watching: callbacks that whoever starts a training adds
"""

from align.training.checkpoints import CHECKPOINTS
from align.training.failures import resources_reported, settings_reported
from align.training.fit import fit, trainer_arguments
from align.training.progress import LOG
from align.training.quiet import quiet_libraries
from align.training.row_means import with_row_means
from align.training.watching import watched_by

__all__ = [
    "CHECKPOINTS",
    "LOG",
    "fit",
    "quiet_libraries",
    "resources_reported",
    "settings_reported",
    "trainer_arguments",
    "watched_by",
    "with_row_means",
]
