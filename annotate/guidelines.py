"""Guidelines as code: `guidelines/<task>/v<N>.md` read into a `Guideline`.

A guideline is one Markdown file. Its front matter says what annotators are asked, its body is what
they read:

    ---
    task: preference
    version: 1
    kind: compare              # two responses at a time; `Kind` lists the others
    overlap: 2                 # people who must submit an item before it counts as done
    questions:
      - name: preference
        type: preference
        title: Which response is better?
        labels: {a_much_better: A is much better, …}
        required: true
      - name: flags
        type: flags
        each: output           # asked once a response; {letter} in its title becomes A, B, …
        …
    ---
    # Choosing between two responses
    …

A version that has been published is never edited: `published.lock` holds its SHA-256, and a file
that no longer matches is refused. So the answers given under a version keep their meaning.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from annotate.errors import InputError
from annotate.front_matter import (
    DECIDING,
    STRENGTH_STEPS,
    WRITTEN,
    GuidelineForm,
    Kind,
    QuestionForm,
    QuestionType,
    nearest,
    read_front_matter,
)

LETTERS = "abcde"
"""What the responses of one item are called, in the order shown."""

LOCK_FILE = "published.lock"
MAX_TEXT = 10_000
"""Characters of guideline that Argilla 2.8 takes."""


@dataclass(frozen=True)
class Question:
    """One question of a guideline. What an answer says depends on the type:

    - `preference`: one of seven labels, from "the first is much better" to "the second is";
    - `ranking`: a rank for every response, 1 the best, ties share one;
    - `mark`: one of two labels, the first of which marks the item and the second does not;
    - `rating`: one of `values`, for each response;
    - `flags`: any number of labels, for each response;
    - `text`: free text;
    - `label`: one of the labels, for the prompt or for each response;
    - `labels`: any number of labels, for the prompt or for each response;
    - `thumbs`: one of two labels, the first of which is "up", for each response;
    - `spans`: stretches of the response's text, each under a label; none is an answer too.
    """

    name: str
    type: QuestionType
    title: str
    description: str
    labels: tuple[tuple[str, str], ...]
    """(value, text shown) in the order shown; empty for ranking, rating and text."""
    values: tuple[int, ...]
    """The ratings to choose from, ascending; empty for any other type."""
    required: bool
    each_output: bool
    """Asked once for every response rather than once for the item."""

    def strengths(self) -> dict[str, int]:
        """Of a preference: label → strength for the response shown first, 3 down to -3.

        Four degrees to each side, the weakest of them shared (Llama 2, arXiv:2307.09288, 3.2.1).
        """
        return {value: STRENGTH_STEPS // 2 - n for n, (value, _) in enumerate(self.labels)}


@dataclass(frozen=True)
class AskedQuestion:
    """A question as it stands in front of an annotator: `flags` of response A is `flags_a`."""

    name: str
    question: Question
    slot: int | None
    """Which response it is about, counted from 0 in the order shown; None: the item."""

    @property
    def title(self) -> str:
        """The title with the response's letter filled in."""
        return self._lettered(self.question.title)

    @property
    def description(self) -> str:
        """The description with the response's letter filled in."""
        return self._lettered(self.question.description)

    def _lettered(self, text: str) -> str:
        return text if self.slot is None else text.replace("{letter}", LETTERS[self.slot].upper())


@dataclass(frozen=True)
class Guideline:
    """What annotators of one task are asked and told, at one version."""

    task: str
    version: int
    kind: Kind
    overlap: int
    """People who must submit an item before it is complete (Argilla's `min_submitted`)."""
    min_outputs: int
    """Fewest responses an item shows."""
    max_outputs: int
    """Most responses an item shows."""
    questions: tuple[Question, ...]
    body: str
    """Markdown, without the front matter."""
    sha256: str
    """Of the whole file, its lines ending in a line feed."""
    path: Path

    @property
    def name(self) -> str:
        """`task@vN`, stored with every item and response."""
        return f"{self.task}@v{self.version}"

    @property
    def text(self) -> str:
        """What annotators read: the body, and below it which version it is."""
        return f"{self.body}\n\n---\n\n*This is guideline {self.name}.*"

    @property
    def deciding(self) -> Question:
        """The question that the task is about; of several aspects the first required one."""
        named = WRITTEN.get(self.kind)
        about = [
            q for q in self.questions if q.type in DECIDING[self.kind] and named in (None, q.name)
        ]
        return next((q for q in about if q.required), about[0])

    def asked(self, n_outputs: int) -> tuple[AskedQuestion, ...]:
        """Every question that an item of `n_outputs` responses asks, in the order asked."""
        return tuple(
            AskedQuestion(f"{q.name}_{LETTERS[slot]}" if slot is not None else q.name, q, slot)
            for q in self.questions
            for slot in (range(n_outputs) if q.each_output else (None,))
        )


def load_guideline(folder: Path, name: str) -> Guideline:
    """Read a guideline and check it against the published versions.

    Args:
        folder: a project's root, or its `guidelines` folder.
        name: `task@vN`, or `task` for its latest version.

    Raises:
        InputError: there is no such guideline, its file is malformed, or it is a published version
            that has been edited.
    """
    folder = _guidelines_folder(folder)
    path = _find(folder, name)
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from None
    form, body = read_front_matter(source, path)
    guideline = _guideline(form, body, source, path)
    _check_text(guideline)
    _check_names(guideline)
    _check_unedited(folder, guideline)
    return guideline


def guideline_names(folder: Path, named: Sequence[str] = ()) -> list[str]:
    """`task@vN` of every guideline file there is, by task and version, or of those named.

    Args:
        named: `task@vN`, or `task` for all its versions; what there is no file of stays as it is.
    """
    found = [
        (path.parent.name, int(path.stem[1:]))
        for path in _guidelines_folder(folder).glob("*/v*.md")
        if path.stem[1:].isdigit()
    ]
    known = [(task, f"{task}@v{version}") for task, version in sorted(found)]
    if not named:
        return [name for _, name in known]
    meant = [[name for task, name in known if task == asked] or [asked] for asked in named]
    return list(dict.fromkeys(chain.from_iterable(meant)))


def published_versions(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of every version in `published.lock`; empty where there is no such file.

    Raises:
        InputError: a line is not `<sha256>  <task>/v<N>.md`.
    """
    lock = _guidelines_folder(folder) / LOCK_FILE
    if not lock.is_file():
        return {}
    published = {}
    for number, line in enumerate(lock.read_text(encoding="utf-8").splitlines(), start=1):
        match = re.fullmatch(r"([0-9a-f]{64})  (\S+)/v(\d+)\.md", line.rstrip())
        if match is None:
            raise InputError(
                "not a line of the form <sha256>  <task>/v<N>.md",
                where=f"{lock}:{number}",
                remedy="Restore the file from version control",
            )
        published[f"{match[2]}@v{match[3]}"] = match[1]
    return published


def publish_guideline(folder: Path, guideline: Guideline) -> bool:
    """Record a version in `published.lock`: from now on its file must not be edited.

    To be called before the first item goes out under it. False if it was recorded before.

    Raises:
        InputError: it was published with other content.
    """
    folder = _guidelines_folder(folder)
    _check_unedited(folder, guideline)
    if guideline.name in published_versions(folder):
        return False
    lock = folder / LOCK_FILE
    lines = lock.read_text(encoding="utf-8").splitlines() if lock.is_file() else []
    lines.append(f"{guideline.sha256}  {guideline.task}/v{guideline.version}.md")
    partial = lock.with_name(f"{LOCK_FILE}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(lock)
    return True


def _guidelines_folder(folder: Path) -> Path:
    inner = folder / "guidelines"
    return inner if inner.is_dir() else folder


def _find(folder: Path, name: str) -> Path:
    match = re.fullmatch(r"([A-Za-z0-9_-]+)(?:@v([1-9]\d*))?", name)
    if match is None:
        remedy = "Write a task or a task and its version, as preference or preference@v1"
        raise InputError(f"{name!r} is not the name of a guideline", remedy=remedy)
    task, wanted = match[1], match[2]
    versions = {
        int(path.stem[1:]): path for path in folder.glob(f"{task}/v*.md") if path.stem[1:].isdigit()
    }
    if not versions:
        tasks = sorted({path.parent.name for path in folder.glob("*/v*.md")})
        remedy = nearest(task, tasks) if tasks else "`handloom init` writes some to begin with"
        raise InputError(f"there is no guideline {task!r}", where=str(folder), remedy=remedy)
    version = int(wanted) if wanted else max(versions)
    if version not in versions:
        known = ", ".join(f"{task}@v{number}" for number in sorted(versions))
        raise InputError(f"there is no {name}", where=str(folder), remedy=f"Known: {known}")
    return versions[version]


def _guideline(form: GuidelineForm, body: str, source: str, path: Path) -> Guideline:
    min_outputs, max_outputs = form.outputs_shown
    return Guideline(
        task=form.task,
        version=form.version,
        kind=form.kind,
        overlap=form.overlap,
        min_outputs=min_outputs,
        max_outputs=max_outputs,
        questions=tuple(_question(question) for question in form.questions),
        body=body,
        sha256=hashlib.sha256(source.encode("utf-8")).hexdigest(),
        path=path,
    )


def _question(form: QuestionForm) -> Question:
    return Question(
        name=form.name,
        type=form.type,
        title=form.title,
        description=form.description.strip(),
        labels=tuple(form.labels.items()),
        values=form.values,
        required=form.required,
        each_output=form.each == "output",
    )


def _check_text(guideline: Guideline) -> None:
    where = str(guideline.path)
    if not guideline.body:
        raise InputError("there is no text below the front matter", where=where)
    if len(guideline.text) > MAX_TEXT:
        what = f"the text has {len(guideline.text):,} characters, Argilla takes {MAX_TEXT:,}"
        raise InputError(what, where=where, remedy="Shorten it")


def _check_names(guideline: Guideline) -> None:
    """The file lies where its front matter says, and no two questions or fields share a name."""
    where = str(guideline.path)
    place = f"{guideline.task}/v{guideline.version}.md"
    if f"{guideline.path.parent.name}/{guideline.path.name}" != place:
        raise InputError(f"task and version say that this is {place}", where=where)
    taken = {"prompt", "guideline", "batch", *(f"response_{letter}" for letter in LETTERS)}
    for asked in guideline.asked(guideline.max_outputs):
        if asked.name in taken:
            raise InputError(f"the name {asked.name!r} is taken", where=where)
        taken.add(asked.name)


def _check_unedited(folder: Path, guideline: Guideline) -> None:
    published = published_versions(folder).get(guideline.name)
    if published not in (None, guideline.sha256):
        following = guideline.version + 1
        raise InputError(
            f"{guideline.name} is published and was edited since",
            where=str(guideline.path),
            remedy=f"Copy it to v{following}.md, set version: {following} there and restore v"
            f"{guideline.version}.md",
        )
