"""The errors a user can act on.

    HandloomError
    ├── InputError      a file, a row, an option or a recipe is not what it should be
    ├── ProjectError    there is no project here, or a run is missing, unfinished or damaged
    ├── ServerError     Argilla is not running, refuses the key, or answers with an error
    ├── TrainingError   a model, its data or its settings cannot be loaded, trained or sampled
    ├── ResourceError   the disk is full or memory has run out
    └── Interrupted     somebody pressed Ctrl-C where the work can be resumed

Anything else that escapes is a bug and keeps its traceback. The command line prints one of these as
a single line (what was wrong, where, what to do next) and exits with its status.
"""


class HandloomError(Exception):
    """Something the user can mend.

    Args:
        what: what was wrong, in one clause, without a final full stop.
        where: the file, line, id or address it was found at; empty if there is none.
        remedy: what to do next, best of all the command that repairs it.
    """

    status = 1
    """What the command line exits with."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f". {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{advice}"


class InputError(HandloomError):
    """A file, a row, an option or a recipe is not what it should be."""


class ProjectError(HandloomError):
    """There is no project here, or one of its runs is missing, unfinished or damaged."""


class ServerError(HandloomError):
    """Argilla is not running, refuses the key, or answers with an error."""


class TrainingError(HandloomError):
    """A model, its data or its settings cannot be loaded, trained or sampled."""


class ResourceError(HandloomError):
    """The disk is full or memory has run out."""


class Interrupted(HandloomError):  # noqa: N818  (nothing went wrong)
    """Somebody pressed Ctrl-C where the work can be resumed."""

    status = 130
