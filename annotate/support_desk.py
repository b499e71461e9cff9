"""A made-up support desk: its prompts, its dialogues, and the rubric of a good answer.

For demonstrations and tests without a hub. `support_desk.yaml` holds the devices, what goes wrong
with them, what mends it, and the sentences of customers and agents. Agents answer well or badly:
an answer's quality is drawn first, and each virtue is likely, each vice unlikely, as it is high. A
small model trained on such dialogues has learnt the good and the bad, and preferences can teach it
which is which.

`rubric` is the known truth of this desk. SIMULATED annotators see it through noise
(`annotate.simulate`); as a scorer of evaluations it is called `support-rubric`. It is no judgement
of people, and whatever rests on it says so.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from annotate.errors import InputError

Messages = list[dict[str, str]]

SCORER = "support-rubric"
"""The rubric's name as a scorer."""

BASE_QUALITY = (0.8, 1.2)
"""Beta distribution of quality among everything a desk writes: for pre-training."""
DEMONSTRATION_QUALITY = (1.5, 1.5)
"""The same for demonstrations: decent, and far enough from good for preferences to matter."""

_TURNS = {"single": 0.75, "asked": 0.125, "tried": 0.125}  # shares of kinds of conversation
_RIGHT_SHORT_ENOUGH = 70  # words


@dataclass(frozen=True)
class Problem:
    """Something that goes wrong with one kind of device, and the two steps that mend it."""

    phrases: tuple[str, ...]
    steps: tuple[str, str]


@dataclass(frozen=True)
class Case:
    """What a customer wants, and so what a good answer must contain."""

    name: str | None
    device: str
    phrase: str
    problem: Problem
    tried: bool = False
    """The first step was taken in vain: now the second is due, and somebody who takes over."""

    @property
    def due(self) -> tuple[str, ...]:
        """The steps to name."""
        return self.problem.steps[1:] if self.tried else self.problem.steps


def _load() -> dict[str, Any]:
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    desk: dict[str, Any] = yaml.safe_load(text)
    return desk


_DESK = _load()
_CUSTOMER: Mapping[str, list[str]] = _DESK["customer"]
_AGENT: Mapping[str, list[str]] = _DESK["agent"]
_KINDS: tuple[tuple[tuple[str, ...], tuple[Problem, ...]], ...] = tuple(
    (
        tuple(kind["devices"]),
        tuple(Problem(tuple(p["phrases"]), tuple(p["steps"])) for p in kind["problems"]),
    )
    for kind in _DESK["kinds"].values()
)
DEVICES = tuple(device for devices, _ in _KINDS for device in devices)
STEPS = tuple(step for _, problems in _KINDS for problem in problems for step in problem.steps)


def prompts(n: int, *, seed: int, split: str = "train") -> list[Messages]:
    """Draw `n` distinct prompts, each a list of messages that a customer's turn ends.

    Every fifth combination of device and problem is never in "train", so that the splits are
    disjoint whatever the seeds, and "eval" asks for what was learnt, not for what was memorised.

    Args:
        split: "train" or "eval".
    """
    rng = np.random.default_rng([seed, split == "eval", 0])
    found: dict[tuple[str, ...], Messages] = {}
    while len(found) < n:
        messages = _conversation(_case(rng, split), rng)
        found.setdefault(tuple(turn["content"] for turn in messages), messages)
    return list(found.values())


def dialogues(
    n: int, *, seed: int, quality: tuple[float, float] = BASE_QUALITY, split: str = "train"
) -> list[Messages]:
    """Draw `n` dialogues that end with an agent's answer, from bad to good.

    Args:
        quality: parameters of the beta distribution of an answer's quality.
    """
    rng = np.random.default_rng([seed, split == "eval", 1])
    found = []
    for _ in range(n):
        case = _case(rng, split)
        answer = _reply(case, rng, float(rng.beta(*quality)))
        found.append([*_conversation(case, rng), {"role": "assistant", "content": answer}])
    return found


def answers(
    messages: Sequence[Mapping[str, str]],
    n: int,
    *,
    seed: Sequence[int],
    quality: tuple[float, float] = DEMONSTRATION_QUALITY,
) -> list[str]:
    """Draw `n` agents' answers to one prompt of the desk, from bad to good.

    Raises:
        InputError: the prompt is not one of the desk's.
    """
    case = read_case(messages)
    if case is None:
        raise _foreign(messages)
    rng = np.random.default_rng([*seed, 2])
    return [_reply(case, rng, float(rng.beta(*quality))) for _ in range(n)]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _case(rng: np.random.Generator, split: str) -> Case:
    if split not in ("train", "eval"):
        raise ValueError(f'split is "train" or "eval", not {split!r}')
    while True:
        kind = int(rng.integers(len(_KINDS)))
        devices, problems = _KINDS[kind]
        device, problem = int(rng.integers(len(devices))), int(rng.integers(len(problems)))
        if ((device + problem + kind) % 5 == 0) == (split == "eval"):
            break
    name = _pick(rng, _CUSTOMER["names"]) if rng.random() < 0.6 else None
    tried = bool(rng.random() < _TURNS["tried"])
    phrase = _pick(rng, problems[problem].phrases)
    return Case(name, devices[device], phrase, problems[problem], tried)


def _conversation(case: Case, rng: np.random.Generator) -> Messages:
    """How the customer puts it, in one turn or after the agent's first answer."""
    greeting = _pick(rng, _CUSTOMER["greetings"]) + ", "
    if case.name:
        introduction = _pick(rng, _CUSTOMER["introductions"]).format(name=case.name)
        greeting += introduction + " "
    context = _pick(rng, _CUSTOMER["contexts"]) if rng.random() < 0.8 else ""
    asking = " ".join(part for part in (context, _pick(rng, _CUSTOMER["asks"])) if part)
    my = "My" if case.name else "my"
    complaint = f"{greeting}{my} {case.device} {case.phrase}. {asking}"
    if case.tried:
        advice = _pick(rng, _AGENT["advice"])
        said = advice.format(device=case.device, steps=case.problem.steps[0])
        return _turns(complaint, said, _pick(rng, _CUSTOMER["tried"]))
    if rng.random() < _TURNS["asked"] / (1 - _TURNS["tried"]):
        opening = f"{greeting}I have a problem with my {case.device}."
        question = _pick(rng, _AGENT["questions"]).format(device=case.device)
        return _turns(opening, question, f"It {case.phrase}. {asking}")
    return _turns(complaint)


def _turns(*contents: str) -> Messages:
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(contents)]


def _reply(case: Case, rng: np.random.Generator, quality: float) -> str:
    """An agent's answer of about this quality, 0 to 1."""

    def virtue(rate: float = 1.0) -> bool:
        return bool(rng.random() < rate * quality)

    def vice(rate: float) -> bool:
        return bool(rng.random() < rate * (1 - quality))

    device = case.device
    if vice(0.6):
        device = _pick(rng, DEVICES) if rng.random() < 0.3 else "device"
    sentences = []
    if virtue():
        name = case.name if case.name and virtue() else None
        sentences.append(_greeting(_pick(rng, _AGENT["greetings"]), name))
    if virtue(0.9):
        regret = _pick(rng, _AGENT["regrets"])
        sentences.append(regret.format(device=device, phrase=case.phrase))
    if vice(0.3):
        sentences.append(_pick(rng, _AGENT["rude"]))
    sentences += _advice(case, device, rng, quality)
    if vice(0.6):
        sentences.append(_pick(rng, _AGENT["rambling"]))
    if vice(0.2):
        sentences.append(sentences[-1])
    if virtue(0.9):
        sentences.append(_pick(rng, _AGENT["follow_ups"]))
    if virtue(0.8):
        agent = _pick(rng, _AGENT["names"])
        sentences.append(_pick(rng, _AGENT["closings"]).format(agent=agent))
    words = " ".join(sentences).split(" ")
    if vice(0.15):
        words = words[: int(len(words) * rng.uniform(0.5, 0.95))]
    return " ".join(words)


def _advice(case: Case, device: str, rng: np.random.Generator, quality: float) -> list[str]:
    """What to do: all that is due, or only a part, or something else, or nothing definite."""
    steps = list(case.due)
    manner = rng.random()
    if manner > quality:
        flaw = rng.random()
        if flaw < 0.5:
            return [_pick(rng, _AGENT["vague"])]
        wrong = int(rng.integers(len(steps)))
        if flaw < 0.7:
            steps[wrong] = _pick(rng, STEPS)
        elif len(steps) > 1:
            del steps[wrong]
    advice = _pick(rng, _AGENT["advice"]).format(device=device, steps=_joined(steps))
    if case.tried and manner < quality:
        return [advice, _pick(rng, _AGENT["escalations"])]
    return [advice]


def _joined(steps: Sequence[str]) -> str:
    return ", and then ".join(steps)


def _greeting(template: str, name: str | None) -> str:
    return template.format(name=name) if name else template.replace(" {name}", "")


def model_answer(messages: Sequence[Mapping[str, str]]) -> str | None:
    """An answer that the rubric finds nothing to mend in; None for a prompt of another desk."""
    case = read_case(messages)
    if case is None:
        return None
    said = "\n".join(turn["content"] for turn in messages)
    rng = np.random.default_rng(list(hashlib.sha256(said.encode()).digest()))
    return " ".join(
        [
            _greeting(_pick(rng, _AGENT["greetings"]), case.name),
            _pick(rng, _AGENT["regrets"]).format(device=case.device, phrase=case.phrase),
            *_advice(case, case.device, rng, quality=1.0),
            _pick(rng, _AGENT["follow_ups"]),
            _pick(rng, _AGENT["closings"]).format(agent=_pick(rng, _AGENT["names"])),
        ]
    )


_INTRODUCED = re.compile(r"\b(?:this is|my name is) (\w+)\.|, (\w+) here\.")


def read_case(messages: Sequence[Mapping[str, str]]) -> Case | None:
    """What the customer wants, read from the conversation; None if it is not about our devices."""
    return _read_case(tuple((turn["role"], turn["content"]) for turn in messages))


@functools.lru_cache(maxsize=65_536)
def _read_case(turns: tuple[tuple[str, str], ...]) -> Case | None:
    asked = " ".join(content for role, content in turns if role == "user")
    said = " ".join(content for role, content in turns if role == "assistant")
    introduced = _INTRODUCED.search(asked)
    name = introduced[1] or introduced[2] if introduced else None
    for devices, problems in _KINDS:
        for device in devices:
            if device not in asked:
                continue
            for problem in problems:
                for phrase in problem.phrases:
                    if phrase in asked:
                        return Case(name, device, phrase, problem, problem.steps[0] in said)
    return None


@dataclass(frozen=True)
class RubricScore:
    """How good an answer is, and why."""

    total: float
    """In [0, 1]: the sum of what it has, times what its faults leave of it."""
    parts: dict[str, float]
    """What each virtue added; 0 where it is missing."""
    faults: dict[str, float]
    """What each fault leaves, as a factor; 1 where it is absent."""


def rubric(messages: Sequence[Mapping[str, str]], completion: str) -> RubricScore:
    """Score a completion for one of the desk's prompts: the known truth, made up like the desk.

    Virtues, adding up to 1: a greeting (.10) by the customer's name where known (.05), the right
    device and no other (.20), what is due (.15 each for two steps, less .15 for each wrong step),
    regret (.10), an offer of more help (.10), a signature at the end (.10), and .05 times the share
    of words that serve. Factors: .5 if rude, .8 for each sentence said again, .7 if it breaks off,
    70/n for n words over 70. Nothing counts twice, so repetition and lists of everything lose.

    Raises:
        InputError: the prompt is not one of the desk's, so that nobody knows the truth.
    """
    case = read_case(messages)
    if case is None:
        raise _foreign(messages)
    text = " ".join(completion.split())
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if s]
    parts = _virtues(case, text, sentences)
    faults = {
        "rude": 0.5 ** any(s in _AGENT["rude"] for s in sentences),
        "repeats": 0.8 ** (len(sentences) - len(set(sentences))),
        "breaks off": 1.0 if text.endswith((".", "!", "?")) else 0.7,
        "long": min(1.0, _RIGHT_SHORT_ENOUGH / max(1, len(text.split()))),
    }
    total = sum(parts.values()) * float(np.prod(list(faults.values())))
    return RubricScore(total, parts, faults)


def _foreign(messages: Sequence[Mapping[str, str]]) -> InputError:
    return InputError(
        "not a prompt of the made-up support desk, so its rubric cannot score it",
        where=messages[-1]["content"][:60] if messages else "",
        remedy="Use people's votes, or another scorer",
    )


def score(messages: Sequence[Mapping[str, str]], completion: str) -> float:
    """The rubric's total alone."""
    return rubric(messages, completion).total


def _virtues(case: Case, text: str, sentences: Sequence[str]) -> dict[str, float]:
    roles = [_role(case, sentence) for sentence in sentences]
    due = [*case.due, *(["escalation"] if case.tried else [])]
    found = sum(step in text for step in case.due) + (case.tried and "escalation" in roles)
    wrong = sum(step in text for step in STEPS if step not in case.due)
    named = case.name is None or f" {case.name}," in "".join(sentences[:1])
    others = any(device in text for device in DEVICES if device != case.device)
    serving = {s: len(s.split()) for s, role in zip(sentences, roles, strict=True) if role}
    return {
        "greeting": 0.10 * (roles[:1] == ["greeting"]),
        "name": 0.05 * (roles[:1] == ["greeting"] and named),
        "device": 0.20 * (case.device in text and not others),
        "steps": 0.30 * max(0, found - wrong) / len(due),
        "regret": 0.10 * ("regret" in roles),
        "follow-up": 0.10 * ("follow-up" in roles),
        "signature": 0.10 * (roles[-1:] == ["closing"]),
        "focus": 0.05 * sum(serving.values()) / max(1, len(text.split())),
    }


def _role(case: Case, sentence: str) -> str | None:
    """What a sentence does for this customer; None if nothing."""
    if any(step in sentence for step in case.due) and len(sentence.split()) <= 30:
        return "advice"
    for role, pattern in _patterns():
        if match := pattern.fullmatch(sentence):
            said = match.groupdict()
            device_right = said.get("device") in (None, case.device)
            return role if device_right and said.get("phrase") in (None, case.phrase) else None
    return None


@functools.cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    roles = {
        "greeting": "greetings",
        "regret": "regrets",
        "escalation": "escalations",
        "follow-up": "follow_ups",
        "closing": "closings",
    }
    blanks = {
        r"\ \{name\}": r"(?: \w+)?",
        r"\{device\}": rf"(?P<device>{'|'.join(DEVICES)})",
        r"\{phrase\}": r"(?P<phrase>[\w' -]+)",
        r"\{agent\}": f"(?:{'|'.join(_AGENT['names'])})",
    }
    found = []
    for role, key in roles.items():
        for template in _AGENT[key]:
            pattern = re.escape(template)
            for blank, form in blanks.items():
                pattern = pattern.replace(blank, form)
            found.append((role, re.compile(pattern)))
    return found
