"""A made-up support desk: its prompts, its dialogues, and the rubric of a good answer.

For demonstrations and tests without a hub. Everything here is invented: 12 devices, 6 kinds of
them, 5 problems a kind, each with a cause and two steps that mend it. Customers describe problems
in many ways; agents answer well or badly, because a dialogue's quality is drawn first. A small model
trained on such dialogues has learnt the good and the bad, and preferences can teach it which is
which.

`rubric` is the known truth: it scores a completion by what a good answer contains. Simulated
annotators see this score through noise (annotate.simulate), and `handloom evaluate` may use it as a
scorer; wherever it speaks, it is called the rubric behind the simulated annotators.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Problem:
    """Something that goes wrong with one kind of device, and the two steps that mend it."""

    phrases: tuple[str, ...]
    steps: tuple[str, str]


# kind -> (devices, problems)
_DESK: dict[str, tuple[tuple[str, ...], tuple[Problem, ...]]] = {
    "kettle": (
        ("Lumo kettle", "Brisk kettle"),
        (
            Problem(
                ("does not heat", "stays cold", "will not boil"),
                ("check that the base is dry", "press the reset pin under the lid"),
            ),
            Problem(
                ("leaks", "drips on the table", "loses water"),
                ("tighten the seal ring", "fill it below the mark"),
            ),
            Problem(
                ("smells of plastic", "has an odd smell", "gives a strange taste"),
                ("boil it twice with vinegar", "rinse it with cold water"),
            ),
            Problem(
                ("switches off too early", "stops before it boils", "turns itself off"),
                ("remove the lime with citric acid", "close the lid until it clicks"),
            ),
            Problem(
                ("is very loud", "makes a loud noise", "hums loudly"),
                ("clean the heating plate", "place it on a flat surface"),
            ),
        ),
    ),
    "speaker": (
        ("Brava speaker", "Echora speaker"),
        (
            Problem(
                ("has no sound", "is silent", "plays nothing"),
                ("raise the volume on the phone", "pair it again in the app"),
            ),
            Problem(
                ("crackles", "sounds distorted", "buzzes at high volume"),
                ("turn the bass down", "move it away from the router"),
            ),
            Problem(
                ("does not charge", "stays empty on the cable", "will not load its battery"),
                ("use the cable from the box", "clean the charging port"),
            ),
            Problem(
                ("loses the connection", "disconnects all the time", "drops the link"),
                ("update its firmware", "keep it within ten metres"),
            ),
            Problem(
                ("does not turn on", "will not start", "shows no light"),
                ("hold the power key for ten seconds", "charge it for one hour"),
            ),
        ),
    ),
    "vacuum": (
        ("Dusty vacuum", "Whirl vacuum"),
        (
            Problem(
                ("has weak suction", "does not pick up dust", "leaves crumbs behind"),
                ("empty the dust box", "wash the filter"),
            ),
            Problem(
                ("gets stuck", "stops under the sofa", "does not move on"),
                ("free the side wheels", "mark a no-go zone in the app"),
            ),
            Problem(
                ("does not find its dock", "never returns home", "gets lost on the way back"),
                ("wipe the dock sensors", "leave one metre free around the dock"),
            ),
            Problem(
                ("stops after five minutes", "has a short run time", "runs out quickly"),
                ("calibrate the battery", "choose the quiet mode"),
            ),
            Problem(
                ("squeaks", "rattles while cleaning", "makes a grinding noise"),
                ("cut the hair off the brush", "oil the brush ends"),
            ),
        ),
    ),
    "lamp": (
        ("Glimmer lamp", "Solari lamp"),
        (
            Problem(
                ("flickers", "blinks at night", "is not steady"),
                ("screw the bulb in firmly", "set the dimmer above thirty percent"),
            ),
            Problem(
                ("stays dark", "does not light up", "gives no light"),
                ("check the plug", "replace the bulb"),
            ),
            Problem(
                ("ignores the app", "does not obey the phone", "is offline in the app"),
                ("join the home network again", "restart the hub"),
            ),
            Problem(
                ("gets too hot", "overheats", "feels very hot"),
                ("use a bulb of nine watts", "keep the shade open"),
            ),
            Problem(
                ("shows the wrong colour", "is always blue", "has odd colours"),
                ("choose the warm scene", "reset the colour profile"),
            ),
        ),
    ),
    "watch": (
        ("Tempo watch", "Pulsar watch"),
        (
            Problem(
                ("shows the wrong time", "is an hour late", "has the wrong clock"),
                ("sync it with the phone", "choose your time zone"),
            ),
            Problem(
                ("does not count steps", "misses my steps", "counts no walk"),
                ("wear it tighter", "turn the motion sensor on"),
            ),
            Problem(
                ("empties its battery", "lasts only one day", "dies by noon"),
                ("lower the brightness", "turn the always-on display off"),
            ),
            Problem(
                ("does not vibrate", "misses calls", "gives no alerts"),
                ("allow notifications in the app", "end the do-not-disturb mode"),
            ),
            Problem(
                ("has a frozen screen", "does not react to touch", "hangs on the logo"),
                ("hold both keys for twelve seconds", "install the latest update"),
            ),
        ),
    ),
    "printer": (
        ("Inkwell printer", "Pressa printer"),
        (
            Problem(
                ("prints blank pages", "leaves the paper white", "prints nothing"),
                ("clean the print head", "check the ink levels"),
            ),
            Problem(
                ("jams", "eats the paper", "has a paper jam"),
                ("open the rear door", "pull the sheet out slowly"),
            ),
            Problem(
                ("is offline", "is not found by my laptop", "lost the network"),
                ("print the network page", "add it again by its address"),
            ),
            Problem(
                ("smears", "leaves black lines", "makes dirty streaks"),
                ("align the cartridges", "choose the plain paper setting"),
            ),
            Problem(
                ("is very slow", "takes ages for a page", "waits before each page"),
                ("choose the draft mode", "connect it by cable"),
            ),
        ),
    ),
}

_GREETINGS = ("Hello", "Hi", "Good morning", "Hi there", "Good evening", "Hello team")
_CONTEXTS = (
    "I bought it last week.",
    "It was fine until yesterday.",
    "It is a present for my mother.",
    "I use it every day.",
    "It is two years old.",
    "I have read the manual.",
    "My neighbour has the same one.",
    "I only unpacked it today.",
    "It started after the move.",
    "",
)
_ASKS = (
    "What can I do?",
    "Can you help?",
    "How do I fix this?",
    "Please help me.",
    "What is wrong with it?",
    "Any idea?",
)
_OPENINGS = (
    "Thank you for writing to us.",
    "Thank you for your message.",
    "I am sorry for the trouble.",
    "Sorry to hear that.",
)
_FOLLOW_UPS = (
    "If it does not help, write to us again and we will replace it.",
    "Tell us if the problem stays and we will send a new one.",
    "We are here if you need more help.",
)
_RUDE = ("That is your own fault.", "You should have read the manual.", "Not our problem.")
_VAGUE = (
    "Just try something else.",
    "It will be fine.",
    "Maybe it is broken.",
    "Have you tried to wait?",
)
_RAMBLING = (
    "Our shop has many nice offers this week.",
    "By the way our team had a party.",
    "The weather is nice today.",
)
_KINDS = tuple(_DESK)
DEVICES = tuple(device for devices, _ in _DESK.values() for device in devices)
_STEPS = tuple(step for _, problems in _DESK.values() for p in problems for step in p.steps)


@dataclass(frozen=True)
class _Case:
    """Which device has which problem, and how the customer says it."""

    device: str
    kind: str
    problem: Problem
    messages: Messages


def prompts(n: int, *, seed: int, split: str = "train") -> list[Messages]:
    """Draw `n` distinct prompts, each a list of messages; one in eight has several turns.

    A prompt's text decides its split, so train and eval never share one, whatever the seeds.

    Args:
        split: "train" (four in five of all prompts) or "eval".
    """
    return [case.messages for case in _cases(n, seed, split, distinct=True)]


def dialogues(n: int, *, seed: int, quality: tuple[float, float] = (2.0, 2.0)) -> list[Messages]:
    """Draw `n` dialogues that end with an agent's answer, from good to bad.

    Args:
        quality: parameters of the beta distribution that an answer's quality, 0 to 1, is drawn
            from: (2, 2) for everything a desk writes, (3, 1.5) for its better agents.
    """
    rng = np.random.default_rng([seed, 1])
    cases = _cases(n, seed, "train", distinct=False)
    return [
        [*case.messages, {"role": "assistant", "content": _reply(case, rng, rng.beta(*quality))}]
        for case in cases
    ]


def _cases(n: int, seed: int, split: str, *, distinct: bool) -> list[_Case]:
    if split not in ("train", "eval"):
        raise ValueError(f'split is "train" or "eval", not {split!r}')
    rng = np.random.default_rng([seed, 0])
    found: list[_Case] = []
    seen: set[str] = set()
    while len(found) < n:
        case = _case(rng)
        text = "\n".join(turn["content"] for turn in case.messages)
        if _split_of(text) == split and not (distinct and text in seen):
            seen.add(text)
            found.append(case)
    return found


def _split_of(text: str) -> str:
    return "eval" if hashlib.sha256(text.encode()).digest()[0] % 5 == 0 else "train"


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _case(rng: np.random.Generator) -> _Case:
    kind = _pick(rng, _KINDS)
    devices, problems = _DESK[kind]
    device = _pick(rng, devices)
    problem = problems[int(rng.integers(len(problems)))]
    phrase = _pick(rng, problem.phrases)
    greeting, context, ask = _pick(rng, _GREETINGS), _pick(rng, _CONTEXTS), _pick(rng, _ASKS)
    complaint = " ".join(part for part in (f"my {device} {phrase}.", context, ask) if part)
    if rng.random() < 1 / 8:
        messages = [
            {"role": "user", "content": f"{greeting}, I have a problem with my {device}."},
            {"role": "assistant", "content": f"What is wrong with your {device}?"},
            {"role": "user", "content": " ".join(p for p in (f"It {phrase}.", context, ask) if p)},
        ]
    else:
        messages = [{"role": "user", "content": f"{greeting}, {complaint}"}]
    return _Case(device, kind, problem, messages)


def _reply(case: _Case, rng: np.random.Generator, quality: float) -> str:
    """An agent's answer: each virtue is likely, each vice unlikely, as `quality` is high."""

    def good() -> bool:
        return bool(rng.random() < quality)

    def slip(rate: float) -> bool:
        return bool(rng.random() < rate * (1 - quality))

    sentences = []
    if good():
        sentences.append(_pick(rng, _OPENINGS))
    if slip(0.6):
        sentences.append(_pick(rng, _RUDE))
    device = case.device if not slip(0.5) else _pick(rng, DEVICES)
    steps = list(case.problem.steps) if good() or good() else []
    if steps and slip(0.7):
        steps[int(rng.integers(2))] = _pick(rng, _STEPS)
    if steps and slip(0.7):
        steps = steps[:1]
    if len(steps) == 2:
        sentences.append(f"To mend your {device}, {steps[0]}. Then {steps[1]}.")
    elif steps:
        sentences.append(f"To mend your {device}, {steps[0]}.")
    else:
        sentences.append(_pick(rng, _VAGUE))
    if slip(0.5):
        sentences.append(_pick(rng, _RAMBLING))
    if slip(0.3):
        sentences.append(sentences[-1])
    if good():
        sentences.append(_pick(rng, _FOLLOW_UPS))
    return " ".join(sentences)


@dataclass(frozen=True)
class RubricScore:
    """How good an answer is, and why."""

    total: float
    parts: dict[str, float]


def rubric(messages: Sequence[dict[str, str]], completion: str) -> RubricScore:
    """Score a completion for one of the desk's prompts; about -4 (harmful) to 6 (all a reply needs).

    +1 for naming the customer's device, -1 for each other device; +1.5 for each of the two right
    steps, -0.75 for each wrong one; +0.75 each for an apology or thanks and for an offer of more
    help; -1.5 for rudeness, -0.5 for each vague or rambling sentence, -0.75 for each sentence said
    before, -1 for an answer that breaks off, -0.02 for each word over 60. What is right is
    counted once however often it is said.
    """
    asked = " ".join(turn["content"] for turn in messages).lower()
    text = " ".join(completion.lower().split())
    device = next((d for d in DEVICES if d.lower() in asked), None)
    problem = _problem_in(device, asked)
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if s]
    right = set(problem.steps if problem else ())
    others = sum(d.lower() in text for d in DEVICES if d != device)
    parts = {
        "device": float(device is not None and device.lower() in text) - others,
        "steps": 1.5 * sum(step in text for step in right)
        - 0.75 * sum(step in text for step in _STEPS if step not in right),
        "opening": 0.75 * any(s.lower() in text for s in _OPENINGS),
        "follow_up": 0.75 * any(s.lower() in text for s in _FOLLOW_UPS),
        "rude": -1.5 * any(s.lower() in text for s in _RUDE),
        "vague": -0.5 * sum(s.lower() in text for s in (*_VAGUE, *_RAMBLING)),
        "repeated": -0.75 * (len(sentences) - len(set(sentences))),
        "unfinished": -1.0 * (not text or text[-1] not in ".!?"),
        "length": -0.02 * max(0, len(text.split()) - 60),
    }
    return RubricScore(sum(parts.values()), parts)


def _problem_in(device: str | None, asked: str) -> Problem | None:
    for devices, problems in _DESK.values():
        if device in devices:
            for problem in problems:
                if any(phrase in asked for phrase in problem.phrases):
                    return problem
    return None
