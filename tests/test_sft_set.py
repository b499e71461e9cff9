"""The SFT set: corrections that count, winners that are clear."""

import json
from typing import Any

import pyarrow as pa
from loop_runs import prompt_row

from align.filters import evidence
from align.sft_set import clear_winners, corrections, sft_set
from annotate.records import SCHEMAS, table_from_rows

PROMPTS = table_from_rows("prompts", [prompt_row("p", "Mend my lamp"), prompt_row("q", "And mine")])
ITEMS = table_from_rows(
    "items", [{"item_id": "i-1", "prompt_id": "p"}, {"item_id": "i-2", "prompt_id": "q"}]
)
OUTPUTS = table_from_rows(
    "outputs",
    [
        {"output_id": f"o-{n}", "prompt_id": "p", "model": "m", "completion": f"answer {n}"}
        for n in range(1, 5)
    ],
)


def wrote(
    text: str | None, item: str = "i-1", who: str = "ada", status: str = "submitted"
) -> dict[str, Any]:
    value = None if text is None else json.dumps({"text": text})
    asked = {"question": "correction", "value": value, "status": status}
    return {"item_id": item, "annotator": who, **asked}


def won(a: str, b: str, posterior: float, strength: float | None) -> dict[str, Any]:
    pair = {"pair_id": f"j-{a}-{b}", "prompt_id": "p", "output_a": a, "output_b": b}
    return pair | {"posterior": posterior, "strength_mean": strength}


def kept(*rows: dict[str, Any]) -> pa.Table:
    return evidence(table_from_rows("judgements", rows), OUTPUTS)


def test_corrections_count_once_submitted_and_written() -> None:
    responses = [
        wrote("Screw in the bulb."),
        wrote("Screw in the bulb.", who="ben"),  # the same words: ada's count
        wrote("Screw in the bulb.", item="i-2"),  # another prompt
        wrote("A draft", status="draft"),
        wrote("Thrown away", status="discarded"),
        wrote("  \n", who="eve"),
        wrote(None, who="flo"),
        wrote("Lost", item="i-9"),
        {"item_id": "i-1", "annotator": "ada", "question": "reason", "value": '{"text": "x"}'},
    ]
    found = corrections(table_from_rows("responses", responses), ITEMS)
    rows = found.rows.to_pylist()
    assert [(row["prompt_id"], row["annotator"]) for row in rows] == [("p", "ada"), ("q", "ada")]
    assert found.dropped == {"not submitted": 2, "unknown item": 1, "empty": 2, "repeated": 1}


def test_clear_winners_win_by_enough_and_lose_nothing() -> None:
    pairs = kept(
        won("o-1", "o-2", 0.9, 3.0),  # clear
        won("o-1", "o-3", 0.9, 1.5),  # the same output, less clearly: counted once
        won("o-2", "o-4", 0.9, 3.0),  # o-2 won here, and lost above
        won("o-3", "o-4", 0.9, 0.5),  # too small a margin, and lost above
    )
    assert clear_winners(pairs, 0.5)["pair_id"].to_pylist() == ["j-o-1-o-2"]


def test_a_pair_without_strength_is_clear_only_if_no_margin_is_asked() -> None:
    pairs = kept(won("o-1", "o-2", 0.9, None))
    assert clear_winners(pairs, 0.5).num_rows == 0
    assert clear_winners(pairs, 0.0).num_rows == 1


def test_rows_say_where_they_come_from() -> None:
    written = corrections(table_from_rows("responses", [wrote("Better.")]), ITEMS).rows
    rows = sft_set(written, clear_winners(kept(won("o-1", "o-2", 0.2, -3.0)), 0.5), PROMPTS)
    assert rows.schema.equals(SCHEMAS["sft"])
    by_source = {row["source"]: row for row in rows.to_pylist()}
    correction, winner = by_source["correction"], by_source["winner"]
    assert correction["completion"] == [{"role": "assistant", "content": "Better."}]
    assert (correction["annotator"], correction["item_id"]) == ("ada", "i-1")
    assert winner["completion"] == [{"role": "assistant", "content": "answer 2"}]
    assert (winner["pair_id"], winner["output_id"]) == ("j-o-1-o-2", "o-2")
    assert winner["prompt"] == [{"role": "user", "content": "Mend my lamp"}]


def test_the_same_text_for_a_prompt_stands_once() -> None:
    written = corrections(table_from_rows("responses", [wrote("answer 1")]), ITEMS).rows
    rows = sft_set(written, clear_winners(kept(won("o-1", "o-2", 0.9, 3.0)), 0.5), PROMPTS)
    assert rows["source"].to_pylist() == ["correction"]
