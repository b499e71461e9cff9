"""The preference set: the winner is chosen, whatever side it was on; margins; TRL reads it."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from loop_runs import prompt_row

from align.filters import evidence
from align.preference_set import mean_noise_rate, preference_set
from annotate.records import SCHEMAS, table_from_rows

PROMPTS = table_from_rows("prompts", [prompt_row("p", "Mend my lamp")])
OUTPUTS = table_from_rows(
    "outputs",
    [
        {"output_id": name, "prompt_id": "p", "model": "m", "completion": text}
        for name, text in {"o-1": "Good.", "o-2": "Bad.", "o-3": "Good."}.items()
    ],
)


def judged(
    posterior: float | None,
    strength: float | None,
    other: str = "o-2",
    noise_rate: float | None = None,
) -> pa.Table:
    row = {"pair_id": f"j-{posterior}", "prompt_id": "p", "output_a": "o-1", "output_b": other}
    figures = {"posterior": posterior, "strength_mean": strength}
    figures["noise_rate"] = noise_rate
    return evidence(table_from_rows("judgements", [row | figures]), OUTPUTS)


def said(messages: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in messages]


def test_the_winner_is_chosen_on_either_side() -> None:
    rows = preference_set(pa.concat_tables([judged(0.9, 1.5), judged(0.1, -3.0)]), PROMPTS)
    assert rows.schema.equals(SCHEMAS["preference"])
    by_pair = {row["pair_id"]: row for row in rows.to_pylist()}
    first, second = by_pair["j-0.9"], by_pair["j-0.1"]
    assert said(first["prompt"]) == [("user", "Mend my lamp")]
    assert said(first["chosen"]) == [("assistant", "Good.")]
    assert said(first["rejected"]) == [("assistant", "Bad.")]
    assert (first["chosen_output"], first["rejected_output"]) == ("o-1", "o-2")
    assert said(second["chosen"]) == [("assistant", "Bad.")]
    assert (first["margin"], second["margin"]) == (0.5, 1.0)
    assert first["split"] == "train"


def test_margin_is_zero_against_the_winner_and_null_when_unknown() -> None:
    # The posterior may overrule a careless majority; a negative margin would teach the opposite.
    assert preference_set(judged(0.9, -1.0), PROMPTS)["margin"].to_pylist() == [0.0]
    assert preference_set(judged(0.9, None), PROMPTS)["margin"].to_pylist() == [None]


def test_p_chosen_is_the_winners_and_noise_the_rest() -> None:
    rows = preference_set(pa.concat_tables([judged(0.9, 1.5), judged(0.2, -3.0)]), PROMPTS)
    by_pair = {row["pair_id"]: row for row in rows.to_pylist()}
    assert by_pair["j-0.9"]["p_chosen"] == pytest.approx(0.9)
    assert by_pair["j-0.2"]["p_chosen"] == pytest.approx(0.8)  # b wins
    assert by_pair["j-0.2"]["noise_rate"] == pytest.approx(0.2)
    calibrated = judged(0.9, 1.5, noise_rate=0.25)
    assert preference_set(calibrated, PROMPTS)["p_chosen"].to_pylist() == [0.75]


def noisy(*rates: tuple[str, float | None]) -> pa.Table:
    return table_from_rows("preference", [{"prompt_id": p, "noise_rate": r} for p, r in rates])


def test_mean_noise_rate_by_hand() -> None:
    # Prompt p: .1 and .3, q: .2, r: .6 (and one unknown). Mean .3 of four pairs; deviations by
    # prompt -.2, -.1, .3; error = sqrt(3/2 * (.04 + .01 + .09)) / 4 = .11456; t(2) = 4.30265.
    found = mean_noise_rate(noisy(("p", 0.1), ("p", 0.3), ("q", 0.2), ("r", 0.6), ("r", None)))
    assert (found.value, found.n) == (pytest.approx(0.3), 4)
    assert found.low == 0.0  # .3 - .49
    assert found.high == pytest.approx(0.3 + 4.30265 * 0.114564, abs=1e-5)


def test_mean_noise_rate_without_spread_or_posterior() -> None:
    one = mean_noise_rate(noisy(("p", 0.1), ("p", 0.3)))
    assert (one.value, one.low) == (pytest.approx(0.2), None)
    assert one.reason == "all pairs are of one prompt"
    same = mean_noise_rate(noisy(("p", 0.1), ("q", 0.1)))
    assert (same.low, same.reason) == (None, "every pair has this rate")
    assert mean_noise_rate(noisy(("p", None))).reason == "no kept pair has a posterior"


@pytest.mark.parametrize("kept", [judged(0.5, 0.0), judged(0.9, 1.0, other="o-3")])
def test_chosen_never_equals_rejected(kept: pa.Table) -> None:
    with pytest.raises(ValueError, match="no winner, or chosen equals rejected"):
        preference_set(kept, PROMPTS)


def test_rows_are_named_by_what_they_hold() -> None:
    once, again = (preference_set(judged(0.9, 1.0), PROMPTS)["row_id"] for _ in range(2))
    turned = preference_set(judged(0.1, 1.0), PROMPTS)["row_id"]
    assert once.equals(again)
    assert not pc.any(pc.equal(once, turned)).as_py()


def test_no_pair_gives_no_row() -> None:
    assert preference_set(judged(0.9, 1.0).slice(0, 0), PROMPTS).num_rows == 0
