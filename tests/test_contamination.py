"""Contamination: shared n-grams as counted by hand, and the rule that drops what it finds."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_runs import generated, judged, new_project, prompt_row

from align.build import build
from align.filters import Contaminated, EvaluationTexts, apply, evaluation_texts
from align.filters.evaluation_texts import find_evaluation_set
from align.filters.ngrams import NgramIndex, plain_words
from annotate.errors import InputError
from annotate.records import table_from_rows
from annotate.runs import Project

SPIDER = "How many legs has a common house spider, and why?"  # 10 words, three 8-grams
ROWS = EvaluationTexts(
    ["bench.jsonl:1 (q)", "bench.jsonl:2 (q)", "bench.jsonl:2 (a)"],
    [SPIDER, "What is two plus two?", "four"],
)


def plain(text: str) -> str:
    return str(plain_words(pa.array([text]))[0].as_py())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  Tell me: WHY?\n", "tell me why"),
        ("", ""),
        ("ﬁne—Ünder", "fine ünder"),  # a ligature, a dash, a capital umlaut
        ("猫が好き", "猫 が 好 き"),
        ("स्त्री", "स्त्री"),  # vowel signs are parts of the word
        ("...", ""),
    ],
)
def test_words(text: str, words: str) -> None:
    assert plain(text) == unicodedata.normalize("NFKC", words)


def test_shares_by_hand() -> None:
    index = NgramIndex(ROWS.texts, n=8, over=0.5)
    texts = [
        f"Please answer. {SPIDER} Thank you.",  # all three
        "how many legs has a common house spider and",  # 9 words: two of the three
        "how many legs has a common house spider",  # one of three
        "many legs house spider",
        "",
    ]
    found = index.find(pa.array([*texts, None]))
    assert found.row.tolist() == [0, 0, -1, -1, -1, -1]
    assert found.share.tolist() == pytest.approx([1, 2 / 3, 0, 0, 0, 0])
    assert NgramIndex(ROWS.texts, n=8, over=0.0).find(pa.array(texts)).share.tolist() == (
        pytest.approx([1, 2 / 3, 1 / 3, 0, 0])
    )


def test_short_texts_are_looked_for_as_a_whole_prompt() -> None:
    index = NgramIndex(ROWS.texts, n=8, over=0.5)
    prompts = ["what is two plus two", "What is two plus two? Think.", "Four.", SPIDER, ""]
    assert index.same(pa.array(prompts)).tolist() == [1, -1, 2, -1, -1]


words = st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join)


@given(
    st.lists(words, max_size=6),
    st.lists(words, max_size=6),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 0.5, 0.8]),
)
def test_shares_equal_those_of_sets(rows: list[str], texts: list[str], n: int, over: float) -> None:
    found = NgramIndex(rows, n, over).find(pa.array(texts, pa.string()))

    def grams(text: str) -> set[tuple[str, ...]]:
        said = text.split()
        return {tuple(said[at : at + n]) for at in range(len(said) - n + 1)}

    for at, text in enumerate(texts):
        shares = [len(grams(row) & grams(text)) / max(1, len(grams(row))) for row in rows]
        best = max(shares, default=0.0)
        if best > over + 1e-9:
            assert found.share[at] == pytest.approx(best)
            assert found.row[at] == int(np.argmax(np.array(shares) > best - 1e-12))
        else:
            assert found.row[at] == -1


OUTPUTS = {
    "o-1": SPIDER.upper(),
    "o-2": "what is two plus two",
    "o-3": "how many legs has a common house spider and",
}


def decided(rule: Contaminated, *pairs: tuple[str, str, str]) -> list[str | None]:
    """The value with which each (prompt, output_a, output_b) is dropped."""
    rows, prompts = [], []
    for at, (prompt, a, b) in enumerate(pairs):
        votes = {"votes_a": 2, "votes_b": 0, "ties": 0, "votes": 2, "posterior": 0.9}
        rows.append({"pair_id": f"j-{at}", "prompt_id": f"p-{at}", "output_a": a, "output_b": b})
        rows[-1] |= votes
        prompts.append(prompt_row(f"p-{at}", prompt))
    outputs = [
        {"output_id": name, "prompt_id": "p", "model": "m", "completion": text}
        for name, text in OUTPUTS.items()
    ]
    decisions = apply(
        [rule],
        table_from_rows("judgements", rows),
        table_from_rows("outputs", outputs),
        prompts=table_from_rows("prompts", prompts),
    )
    for row in decisions.to_pylist():
        assert json.loads(row["reasons"]) is not None
    return decisions["value"].to_pylist()


def test_the_rule_names_the_row_the_share_and_the_place() -> None:
    rule = Contaminated(sets=("bench.jsonl",)).against(ROWS)
    assert rule.threshold == "at most 50 % of the 8-grams of any text of bench.jsonl"
    pairs = [
        ("Say something", "o-2", "o-3"),
        ("Say something", "o-2", "o-1"),
        (f"Q: {SPIDER}", "o-2", "o-1"),
        ("what is two plus two", "o-2", "o-2"),
        ("Say four", "o-2", "o-2"),
    ]
    assert decided(rule, *pairs)[:4] == [
        "bench.jsonl:1 (q): 66 % of its 8-grams in a response",
        "bench.jsonl:1 (q): 100 % of its 8-grams in a response",
        "bench.jsonl:1 (q): 100 % of its 8-grams in the prompt",
        "bench.jsonl:2 (q): 100 % of its 8-grams in the prompt",
    ]
    assert decided(rule, *pairs)[4] == "identical"  # only what always holds
    strict = Contaminated(sets=("x",), only="prompt").against(ROWS)
    assert decided(strict, *pairs[:3])[:2] == [None, None]
    responses = Contaminated(sets=("x",), only="responses", at_most=0.8).against(ROWS)
    assert decided(responses, *pairs[:3])[0] is None
    assert "in a response" in str(decided(responses, *pairs[:3])[2])


@given(st.lists(st.tuples(words, st.permutations(["o-1", "o-2", "o-3"])), max_size=5))
def test_swapping_the_responses_changes_no_value(pairs: list[tuple[str, list[str]]]) -> None:
    rule = Contaminated(sets=("x",), n=2, at_most=0.2).against(ROWS)
    straight = decided(rule, *((prompt, a, b) for prompt, (a, b, _) in pairs))
    assert straight == decided(rule, *((prompt, b, a) for prompt, (a, b, _) in pairs))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def test_every_text_of_a_row_counts(project: Project) -> None:
    path = project.root / "bench.jsonl"
    row = {"question": SPIDER, "choices": ["six", "eight"], "n": 3, "gold": {"text": "eight"}}
    path.write_text(json.dumps(row) + "\n\n" + json.dumps("a lone text") + "\n")
    found = evaluation_texts(path)
    assert found.names == [
        "bench.jsonl:1 (question)",
        "bench.jsonl:1 (choices.0)",
        "bench.jsonl:1 (choices.1)",
        "bench.jsonl:1 (gold.text)",
        "bench.jsonl:3",
    ]
    pq.write_table(pa.table({"q": [SPIDER, "b"]}), project.root / "bench.parquet")
    assert evaluation_texts(project.root / "bench.parquet").names == [
        "bench.parquet:1 (q)",
        "bench.parquet:2 (q)",
    ]
    run = generated(project, {"held out": ["x", "y"]}, split="eval")
    assert evaluation_texts(run).texts == ["held out"]
    assert find_evaluation_set(project, run.id[:12]) == run


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"q": "a"}\n{"q": ', r"bench\.jsonl:2: not JSON"),
        ("", "it holds no evaluation text"),
        ('{"n": 1}', "it holds no evaluation text"),
    ],
)
def test_an_unusable_set_is_one_clear_line(project: Project, content: str, complaint: str) -> None:
    path = project.root / "bench.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=complaint):
        evaluation_texts(path)


def test_build_drops_what_a_set_holds_and_knows_when_the_set_changed(project: Project) -> None:
    prompts: dict[str, list[str]] = {SPIDER: ["Eight.", "Six."], "Why?": ["So.", "No."]}
    run = judged(project, generated(project, prompts), {text: [3, 3] for text in prompts})
    bench = project.root / "bench.jsonl"
    bench.write_text(json.dumps({"q": SPIDER}))
    recipe = project.root / "recipe.yaml"
    recipe.write_text("filters: [{rule: contaminated, sets: [bench.jsonl]}]\nheld_out: 0\n")

    def built() -> Any:
        return build(project, [run], recipe=str(recipe))

    first = built()
    assert first.metrics["dropped"] == {"contaminated": 1}
    (dropped,) = [row for row in first.read("decisions").to_pylist() if not row["kept"]]
    assert dropped["value"] == "bench.jsonl:1 (q): 100 % of its 8-grams in the prompt"
    assert built().id == first.id
    bench.write_text(json.dumps({"q": "Something else than that, of eight words or more."}))
    assert built().metrics["kept"] == 2
    bench.unlink()
    with pytest.raises(InputError, match=r"bench\.jsonl: neither a file nor a run"):
        built()
