"""The benchmark of training at its smallest: all sides do the same work and say what it took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# At the end: one of the benchmarks is called argilla.py.
sys.path.append(str(Path(__file__).parent.parent / "bench"))

import training as bench
import training_data


def test_lengths_are_those_that_the_file_states() -> None:
    rows = training_data.pairs(2000, seed=0)
    words = np.array(
        [
            [len(row[part][0]["content"].split()) for part in ("prompt", "chosen", "rejected")]
            for row in rows
        ]
    )
    assert np.median(words, axis=0) == pytest.approx([26, 17, 17], rel=0.15)
    logs = np.log(words)
    assert np.corrcoef(logs.T)[1, 2] == pytest.approx(0.6, abs=0.07)
    assert not any(row["chosen"] == row["rejected"] for row in rows)


def test_what_is_needed_is_counted_by_hand() -> None:
    config = {"hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
              "num_key_value_heads": 1, "intermediate_size": 3, "vocab_size": 5}  # fmt: skip
    # A layer: 4 matrices of 2 by 2 and 3 of 2 by 3, 34 products a token; 10 a prediction.
    # Prompt of 2, completions of 1 and 3 tokens: 6 tokens, 4 predictions; attention looks back
    # over 2 + (2 + .5) * 1 + (2 + 1.5) * 3 = 15 tokens, with 2 products for keys, 2 for values.
    lengths = np.array([[2, 1, 3]])
    assert training_data.operations(lengths, "dpo", config) == 2 * (34 * 6 + 10 * 4) + 4 * 2 * 15
    # SFT sees the chosen one alone: 3 tokens, 1 prediction, 2 + 2.5 looked at.
    assert training_data.operations(lengths, "sft", config) == 2 * (34 * 3 + 10) + 4 * 2 * 4.5


def test_a_ratio_has_the_interval_of_its_rounds() -> None:
    found = bench.ratio([4.0, 9.0], [2.0, 3.0])
    assert found.value == pytest.approx(np.sqrt(2 * 3))
    assert found.low is not None
    assert found.low < 2
    assert bench.ratio([4.0], [2.0]).low is None


@pytest.mark.slow
def test_quickly_every_side_reaches_the_same_held_out_loss() -> None:
    said = subprocess.run(
        [sys.executable, str(bench.__file__), "--quick", "--methods", "dpo,sft"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(said.stdout.splitlines()[-1])
    for figure in ("ratio", "tokens_per_second", "share_of_peak", "peak_mb"):
        assert set(found[figure]) == {"dpo", "sft"}
    for by_model in found["held_out"].values():
        losses = [figures["loss"] for figures in by_model["base"].values()]
        assert losses == pytest.approx([losses[0]] * len(losses), abs=1e-5)
