"""What a chat template must do so that training and sampling see the same dialogue.

A template is a program that comes with a model. transformers runs it in a sandbox that keeps it
away from files and code but lets it loop for ever, so it is tried here first, on dialogues of our
own and within a limit of processor time. A limit of memory it does not have.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import jinja2
from rich.console import Console

from align.conversations import conversation_tokens
from align.model import Loaded, stop_tokens
from align.recipe.parts import TURNS
from align.tokenizer import CHAT_TEMPLATE
from annotate.errors import InputError, TrainingError
from annotate.records import text_message

SECONDS = 5.0
"""Processor time that the dialogues here may take together; milliseconds are usual."""

_ASKED = ("Which lamp flickers?", "And since when?")
_SAID = ("The one in the hall.", "Since last night.")
_DIALOGUE = [
    text_message(role, text)
    for asked, said in zip(_ASKED, _SAID, strict=True)
    for role, text in (("user", asked), ("assistant", said))
]
# A compiled template, and what it can call; all else has an end of its own, compiling included.
_MAY_LOOP = re.compile(r"^<|jinja2.(filters|runtime|tests|utils)\.py$")
# What a template's own code may raise beside jinja2's errors.
_FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class TemplateCheck:
    """What a template was found to do."""

    begins_alike: bool
    """A prompt that asks for an answer is how the dialogue with the answer begins."""
    ends: bool
    """An answer is followed by a token that ends it."""
    marks: bool
    """Generation marks stand around each answer and the token that ends it."""
    forgeable: bool
    """A user can write what reads like another turn."""

    def warnings(self, *, completes: bool = True) -> list[str]:
        """What to know before training, each with a remedy.

        Args:
            completes: the model is to write completions, and not only to score them.
        """
        found = []
        if completes and not self.begins_alike:
            found.append(
                "its chat template begins a dialogue otherwise than the prompt alone: training "
                "sees another beginning of the answer than sampling. Let add_generation_prompt "
                "write what stands before an answer"
            )
        if completes and not self.ends:
            found.append(
                "its chat template ends no answer with eos_token: the model will not learn to "
                "stop. Write {{ eos_token }} after an answer"
            )
        if self.forgeable:
            found.append(
                "its chat template marks turns with ordinary words, which a text can forge. Use "
                "special tokens for them"
            )
        return found


def template_text(name: str, folder: Path) -> str:
    """The chat template of this name: `turns`, or a file's.

    Args:
        folder: that a file's name is seen from.

    Raises:
        InputError: there is no such file, or it is no text.
    """
    if name == TURNS:
        return CHAT_TEMPLATE
    path = template_file(name, folder)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(
            "chat_template: no file with a template",
            where=str(path),
            remedy=f"Name a file with a Jinja template, or `{TURNS}`",
        ) from None


def template_file(name: str, folder: Path) -> Path:
    """Where a template that is no shipped one lies."""
    return folder / Path(name).expanduser()


def check_template(loaded: Loaded) -> TemplateCheck:
    """Try a model's chat template on a dialogue of two questions and answers.

    Raises:
        TrainingError: it takes too long, fails, or leaves out what was said.
    """
    with _limited(loaded.ref.name):
        return _tried(loaded)


def require_ending(tokenizer: Any, where: str) -> None:
    """Try a chat template on one question only.

    Args:
        where: the model's name.

    Raises:
        TrainingError: it takes too long, or fails.
    """
    with _limited(where):
        tokenizer.apply_chat_template(_DIALOGUE[:1], add_generation_prompt=True, tokenize=False)


@contextlib.contextmanager
def _limited(where: str) -> Iterator[None]:
    try:
        with processor_time(SECONDS):
            yield
    except OutOfTimeError:
        raise TrainingError(
            f"its chat template did not end within {SECONDS:.0f} seconds of processor time",
            where=where,
            remedy="Look for loops in it, and trust the model's source no further than that",
        ) from None
    except _FAULTS as error:
        first = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise TrainingError(
            f"its chat template fails on a plain dialogue: {first}",
            where=where,
            remedy="Give the tokenizer a template that takes user and assistant turns",
        ) from None


def warn(loaded: Loaded, warnings: Sequence[str]) -> None:
    """Say them on stderr, a line each: they are no reason not to train."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for warning in warnings:
        console.print(f"warning: {loaded.ref.name}: {warning}", markup=False)


def _tried(loaded: Loaded) -> TemplateCheck:
    tokenizer: Any = loaded.tokenizer
    text: str = tokenizer.apply_chat_template(_DIALOGUE, tokenize=False)
    places = [text.find(turn["content"]) for turn in _DIALOGUE]
    if -1 in places or places != sorted(places):
        raise TrainingError(
            "its chat template leaves out or reorders what was said",
            where=loaded.ref.name,
            remedy="Give the tokenizer a template that writes every turn",
        )
    asked, said = places[0] + len(_ASKED[0]), places[1] + len(_SAID[0])
    between = (text[asked : places[1]], text[said : places[2]])
    # One turn that says what the first three do, with the template's own words between them.
    forged = f"{_ASKED[0]}{between[0]}{_SAID[0]}{between[1]}{_ASKED[1]}"
    real, false = conversation_tokens(
        loaded, [_DIALOGUE, [text_message("user", forged), _DIALOGUE[-1]]]
    )
    prompt = tokenizer.apply_chat_template(
        _DIALOGUE[:-1], add_generation_prompt=True, tokenize=False
    )
    return TemplateCheck(
        begins_alike=text.startswith(prompt) and text[len(prompt) :].startswith(_SAID[1]),
        ends=_has_end(loaded, text[places[3] + len(_SAID[1]) :]),
        marks=_marks(loaded),
        forgeable=real == false,
    )


def _has_end(loaded: Loaded, tail: str) -> bool:
    ids = loaded.tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
    return any(end in ids for end in stop_tokens(loaded))


def _marks(loaded: Loaded) -> bool:
    """Whether what is marked is each answer with its end, and nothing else."""
    tokenizer: Any = loaded.tokenizer
    if "generation" not in str(tokenizer.chat_template):
        return False
    made = tokenizer.apply_chat_template(
        _DIALOGUE, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [
        token
        for token, mask in zip(made["input_ids"], made["assistant_masks"], strict=True)
        if mask
    ]
    words = "".join(tokenizer.decode(marked, skip_special_tokens=True).split())
    ends = marked.count(tokenizer.eos_token_id)
    return words == "".join("".join(_SAID).split()) and ends == len(_SAID)


class OutOfTimeError(BaseException):
    """Raised wherever the code happens to be; no `except Exception` on the way holds it up."""


@contextlib.contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """End what templates compute when it has taken this much of the thread's processor time.

    By tracing, since a thread cannot be ended from outside and a signal reaches only the main one.
    What a library does in compiled code is not traced: a single call there goes on to its end.

    Raises:
        OutOfTimeError: the time is over.
    """
    end = time.thread_time() + seconds
    watched: dict[CodeType, bool] = {}

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if time.thread_time() > end:
            raise OutOfTimeError
        code = frame.f_code
        if code not in watched:
            watched[code] = _MAY_LOOP.search(code.co_filename) is not None
        return watch if watched[code] else None

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)
