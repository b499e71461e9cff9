"""The card: its header is what the Hub reads; it says who judged, what was dropped, whence."""

from dataclasses import replace

import yaml

from align.card import CardFacts, card, interval_text

FACTS = CardFacts(
    run_id="r1-build-0a",
    counts={
        "pairs": 10,
        "kept": 6,
        "dropped": {"agreement": 2, "ties": 1},
        "quarantined": 1,
        "noise_rate": {"value": 0.1, "low": 0.05, "high": 0.15, "n": 6, "over": "kept pairs"},
        "preference": {"train": 5, "eval": 1},
        "sft": {"correction": 2},
    },
    filters=[("agreement", "at least 100 % of the votes for the winner"), ("ties", "a winner")],
    annotators=["ada", "ben"],
    guidelines=["preference@v1"],
    models=["base", "r0-train-1f"],
    agreement={
        "vote": {
            "alpha": {
                "value": 0.5,
                "low": 0.4,
                "high": 0.6,
                "over_annotators": {"low": 0.2, "high": 0.8},
            },
            "items": 9,
            "answers": 18,
        },
        "reason": {"items": 9, "answers": 18},
    },
    lineage=["r1-judge-1", "r1-pull-2"],
)


def header(text: str) -> dict[str, object]:
    _, head, _ = text.split("---\n", 2)
    found: dict[str, object] = yaml.safe_load(head)
    return found


def test_header_names_both_files_and_calls_no_split_train() -> None:
    head = header(card(FACTS))
    assert head["size_categories"] == ["n<1K"]
    assert head["configs"] == [
        {"config_name": name, "data_files": [{"split": "all", "path": f"{name}.parquet"}]}
        for name in ("preference", "sft")
    ]
    assert "license" not in head


def test_an_empty_set_is_not_offered() -> None:
    head = header(card(replace(FACTS, counts={**FACTS.counts, "sft": {}})))
    assert [one["config_name"] for one in head["configs"]] == ["preference"]  # type: ignore[attr-defined]


def test_body_gives_counts_filters_agreement_lineage_and_licence() -> None:
    text = card(FACTS)
    assert (
        "Judged by 2 people, under `preference@v1`. Completions by `base`, `r0-train-1f`." in text
    )
    assert "| `preference.parquet` | 6 | 5 train, 1 eval |" in text
    assert "| `decisions.parquet` | 9 |" in text
    assert "Of 10 judged pairs 6 were kept" in text
    assert "| agreement | at least 100 % of the votes for the winner | 2 |" in text
    assert "| quarantined | a usable row | 1 |" in text
    assert "| vote | 0.500 [0.400, 0.600] | [0.200, 0.800] | 9 | 18 |" in text
    assert "| reason |" not in text
    assert "is 0.100 [0.050, 0.150] (95 % interval over kept pairs; n=6 pairs)" in text
    assert "- `r1-pull-2`" in text
    assert text.endswith("## Licence\n\nnot stated\n")


def test_simulated_annotators_are_called_so() -> None:
    text = card(replace(FACTS, annotators=["sim-ada", "sim-ben"]))
    assert "2 **simulated annotators**, not people" in text
    assert "simulated-annotators" in header(text)["tags"]  # type: ignore[operator]
    mixed = card(replace(FACTS, annotators=["ada", "sim-ben"]))
    assert "1 people and 1 **simulated annotators**" in mixed


def test_unknown_noise_is_said() -> None:
    unknown = {"value": None, "reason": "no kept pair has a posterior"}
    text = card(replace(FACTS, counts={**FACTS.counts, "noise_rate": unknown}))
    assert "## Noise\n\nNot estimated: no kept pair has a posterior." in text


def test_unknown_agreement_is_said() -> None:
    assert "## Agreement\n\nNot measured." in card(replace(FACTS, agreement={}))
    alpha = {"value": 0.5, "low": 0.4, "high": 0.6, "over_annotators": {"reason": "two annotators"}}
    told = card(replace(FACTS, agreement={"vote": {"alpha": alpha}}))
    assert "| vote | 0.500 [0.400, 0.600] | not known: two annotators |" in told
    assert interval_text({"value": None, "reason": "no data"}) == "undefined (no data)"
    assert interval_text({"value": 1.0, "low": None, "reason": "r"}) == "1.000 (no interval: r)"
