"""The made-up support desk: what it asks, what it answers, and that its rubric cannot be fooled."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate import support_desk
from annotate.errors import InputError
from annotate.support_desk import (
    DEVICES,
    STEPS,
    dialogues,
    model_answer,
    prompts,
    read_case,
    rubric,
    score,
)

ASKED = [{"role": "user", "content": "Hi, this is Mara. My Wick lamp flickers. Can you help?"}]
GOOD = (
    "Hello Mara, thank you for writing to us. I am sorry that your Wick lamp flickers. To mend "
    "your Wick lamp, screw the bulb in firmly, and then set the dimmer above thirty percent. "
    "Please tell me whether this helped. Kind regards, Nora."
)
TRIED = [
    *ASKED,
    {"role": "assistant", "content": "To mend your Wick lamp, screw the bulb in firmly."},
    {"role": "user", "content": "I did that and nothing has changed."},
]


def test_prompts_are_distinct_and_the_same_for_the_same_seed() -> None:
    drawn = prompts(500, seed=3)
    assert drawn == prompts(500, seed=3)
    assert drawn != prompts(500, seed=4)
    assert len({str(messages) for messages in drawn}) == 500
    assert prompts(20, seed=3) == drawn[:20]


@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_no_combination_of_device_and_problem_is_on_both_sides(one: int, other: int) -> None:
    def combinations(split: str, seed: int) -> set[tuple[str, str]]:
        cases = [read_case(messages) for messages in prompts(40, seed=seed, split=split)]
        return {(case.device, case.problem.steps[0]) for case in cases if case is not None}

    assert combinations("train", one).isdisjoint(combinations("eval", other))


def test_every_fifth_combination_is_held_out() -> None:
    cases = [read_case(messages) for messages in prompts(1500, seed=0, split="eval")]
    held_out = {(case.device, case.problem.steps) for case in cases if case is not None}
    assert len(held_out) == len(DEVICES) * 5 // 5


def test_conversations_have_one_turn_or_several_and_end_with_the_customer() -> None:
    drawn = prompts(400, seed=1)
    assert {len(messages) for messages in drawn} == {1, 3}
    assert 0.15 < np.mean([len(messages) == 3 for messages in drawn]) < 0.35
    assert all(messages[-1]["role"] == "user" for messages in drawn)


def test_the_answer_it_would_give_itself_scores_full_marks() -> None:
    for split in ("train", "eval"):
        for messages in prompts(300, seed=7, split=split):
            answer = model_answer(messages)
            assert answer is not None
            assert score(messages, answer) == pytest.approx(1.0), (messages, answer)


def test_dialogues_range_from_bad_to_good_and_rise_with_quality() -> None:
    def scores(quality: tuple[float, float]) -> np.ndarray:
        drawn = dialogues(300, seed=2, quality=quality)
        return np.array([score(d[:-1], d[-1]["content"]) for d in drawn])

    poor, decent, good = (scores(q) for q in ((1.2, 1.8), (3.0, 3.0), (20.0, 1.0)))
    assert poor.mean() + 0.03 < decent.mean() < good.mean() - 0.2
    assert poor.min() < 0.1
    assert poor.max() > 0.95
    assert len(np.unique(poor.round(3))) > 100


def test_the_parts_of_a_good_answer_by_hand() -> None:
    result = rubric(ASKED, GOOD)
    assert result.total == pytest.approx(1.0)
    assert result.parts == pytest.approx(
        {
            "greeting": 0.10,
            "name": 0.05,
            "device": 0.20,
            "steps": 0.30,
            "regret": 0.10,
            "follow-up": 0.10,
            "signature": 0.10,
            "focus": 0.05,
        }
    )
    assert set(result.faults.values()) == {1.0}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("Hello Mara,", "Hello,", 0.95),
        ("screw the bulb in firmly, and then ", "", 0.85),
        # one right step, one wrong one: .15 - .15
        ("screw the bulb in firmly", "wash the filter", 0.70),
        # another device is named: .20 for the device; the sentence of regret is about nothing
        # here, .10 and its 8 of 43 words of focus
        ("sorry that your Wick lamp", "sorry that your Tempo watch", 0.70 - 0.05 * 8 / 43),
        (" Kind regards, Nora.", "", 0.90),
        # rude: 5 of 48 words do not serve, and half of all is lost
        ("To mend", "That is your own fault. To mend", 0.5 * (0.95 + 0.05 * 43 / 48)),
        # breaks off in the signature
        (" Kind regards, Nora.", " Kind regards", 0.7 * (0.85 + 0.05 * 40 / 42)),
        # a sentence said again
        (
            "Please tell me whether this helped.",
            "Please tell me whether this helped. Please tell me whether this helped.",
            0.8 * (0.95 + 0.05 * 43 / 49),
        ),
    ],
)
def test_each_fault_costs_what_the_rubric_says(old: str, new: str, expected: float) -> None:
    assert old in GOOD
    assert score(ASKED, GOOD.replace(old, new)) == pytest.approx(expected, abs=1e-9)


def test_a_step_tried_in_vain_is_wrong_and_somebody_takes_over() -> None:
    answer = (
        "Hello Mara, thank you for writing to us. I am sorry that your Wick lamp flickers. To mend "
        "your Wick lamp, set the dimmer above thirty percent. A technician will call you tomorrow. "
        "Please tell me whether this helped. Kind regards, Nora."
    )
    assert score(TRIED, answer) == pytest.approx(1.0)
    assert rubric(TRIED, GOOD).parts["steps"] == 0.0
    assert rubric(ASKED, answer).parts["steps"] == pytest.approx(0.15)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " ".join(STEPS),
        " ".join(f"{step}." for step in STEPS),
        " ".join(DEVICES) + ".",
        "Wick lamp. " * 40,
        "Hello Mara, thank you for writing to us. " * 10,
        GOOD + " " + " ".join(f"Your {device}." for device in DEVICES),
    ],
)
def test_lists_of_everything_and_repetition_do_not_pay(answer: str) -> None:
    assert score(ASKED, answer) < 0.4


def test_saying_it_all_again_is_worse_than_saying_it_once() -> None:
    assert score(ASKED, f"{GOOD} {GOOD}") < 0.5 * score(ASKED, GOOD)


def test_adding_more_of_the_same_never_pays() -> None:
    sentences = re.split(r"(?<=\.) ", GOOD)
    for sentence in sentences:
        for place in range(len(sentences) + 1):
            padded = [*sentences[:place], sentence, *sentences[place:]]
            assert score(ASKED, " ".join(padded)) < 0.9


@given(st.text(max_size=300))
def test_any_text_scores_between_0_and_1(text: str) -> None:
    assert 0.0 <= score(ASKED, text) <= 1.0
    assert 0.0 <= score(ASKED, f"{GOOD} {text}") <= 1.0


def test_a_prompt_of_another_desk_cannot_be_scored() -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    assert model_answer(messages) is None
    with pytest.raises(InputError, match="not a prompt of the made-up support desk"):
        rubric(messages, "Paris.")
    with pytest.raises(InputError):
        rubric([], "Paris.")


def test_no_phrase_and_no_step_hides_in_another() -> None:
    for _, problems in support_desk._KINDS:
        phrases = [phrase for problem in problems for phrase in problem.phrases]
        for phrase in phrases:
            assert [other for other in phrases if phrase in other] == [phrase]
    for step in STEPS:
        assert [other for other in STEPS if step in other] == [step]
    assert len(set(DEVICES)) == len(DEVICES)


def test_a_split_has_only_two_names() -> None:
    with pytest.raises(ValueError, match="train"):
        prompts(1, seed=0, split="test")
