"""Sides: by what a prompt says, kept across rounds, never both."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_runs import generated, judged, new_project, prompt_row

from align.build import build
from align.split import Sides, fingerprints, require_disjoint, sides, sides_taken
from annotate.errors import InputError
from annotate.records import table_from_rows, text_message

NOTHING = Sides(frozenset(), frozenset())


def prompts(*texts: str, split: str = "train") -> pa.Table:
    rows = [prompt_row(f"id-{at}", text, split) for at, text in enumerate(texts)]
    return table_from_rows("prompts", rows)


def names(*texts: str) -> list[str]:
    found: list[str] = fingerprints(prompts(*texts)["messages"]).to_pylist()
    return found


def test_fingerprint_is_of_what_is_said() -> None:
    one, same, other = names("Mend my lamp", "  mend my LAMP\n", "Mend my lamps")
    assert one == same != other


def test_fingerprint_tells_turns_and_roles_apart() -> None:
    conversations = [
        [text_message("user", "a b")],
        [text_message("user", "a"), text_message("user", "b")],
        [text_message("system", "a"), text_message("user", "b")],
    ]
    rows = [{"prompt_id": str(at), "messages": said} for at, said in enumerate(conversations)]
    table = table_from_rows("prompts", rows)
    assert len(set(fingerprints(table["messages"]).to_pylist())) == 3
    # A slice, and a table of several chunks, have the names of the whole.
    parts = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert fingerprints(parts["messages"]).equals(fingerprints(table["messages"]))
    assert fingerprints(table.slice(2)["messages"])[0] == fingerprints(table["messages"])[2]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_larger_share_holds_out_more_of_the_same(
    texts: list[str], share: float, more: float
) -> None:
    few = sides(prompts(*texts), NOTHING, share).to_pylist()
    many = sides(prompts(*texts), NOTHING, share + more).to_pylist()
    assert all(side == "eval" for side, before in zip(many, few, strict=True) if before == "eval")


def test_the_share_held_out_is_about_what_was_asked() -> None:
    side = sides(prompts(*(f"prompt {n}" for n in range(2000))), NOTHING, 0.1).to_pylist()
    # Binomial, 2000 draws at 0.1: mean 200, standard deviation 13.4; four of them each way.
    assert 146 < side.count("eval") < 254


def test_evaluation_beats_an_earlier_training_set_which_beats_the_hash() -> None:
    table = prompts("a", "b", "c")
    a, b, _ = names("a", "b", "c")
    taken = Sides(held_out=frozenset({a}), trained=frozenset({a, b}))
    assert sides(table, taken, 0.999999).to_pylist() == ["eval", "train", "eval"]
    assert sides(prompts("b", split="eval"), taken, 0).to_pylist() == ["eval"]


def test_the_same_words_under_two_ids_stay_together() -> None:
    table = pa.concat_tables([prompts("a", split="eval"), prompts("A ")])
    assert sides(table, NOTHING, 0).to_pylist() == ["eval", "eval"]


def test_require_disjoint_names_the_place() -> None:
    taken = Sides(frozenset(names("a")), frozenset())
    require_disjoint(prompts("b")["messages"], taken, "r1-judge-0")
    with pytest.raises(InputError, match="r1-judge-0: 1 prompts to train on are held out"):
        require_disjoint(prompts("A", "b")["messages"], taken, "r1-judge-0")


def test_sides_taken_reads_the_whole_lineage(tmp_path: Path) -> None:
    project = new_project(tmp_path / "p")
    first = generated(project, {"seen": ["good", "bad"]})
    built = build(project, [judged(project, first, {"seen": [3, 3]})])
    measured = generated(project, {"held out": ["x", "y"]}, split="eval", round=2, parents=(built,))
    taken = sides_taken(measured)
    assert taken.held_out == set(names("held out"))
    assert taken.trained == set(names("seen"))
