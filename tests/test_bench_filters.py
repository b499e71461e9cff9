"""The benchmark of filters, at its smallest: it runs, and counts what it says it counts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

# At the end: one of the benchmarks is called argilla.py.
sys.path.append(str(Path(__file__).parent.parent / "bench"))

import filters as bench


def test_it_runs_and_names_every_target() -> None:
    small = yaml.safe_load(bench.SETTINGS.read_text(encoding="utf-8"))
    small["simulation"]["prompts"] = {2: 400, 4: 60}
    small["coverage"] |= {"replications": 3, "resamples": 40}
    small["coverage"]["panels"] = [{"people": 6, "items": 40, "overlap": 6}]
    found = bench.run(small, seeds=2)
    # Two shares of bad people: at unanimity's yield, at half of two and of four, stated .95 for
    # two and four responses; two intervals of one panel.
    assert len(found["met"]) == 2 * 3 + 2 * 2 + 2
    for figures in found["filters"].values():
        assert figures["default_at_unanimity"]["yield"] == pytest.approx(
            figures["unanimity"]["yield"]
        )
        assert figures["default_at_half"]["yield"] == 0.5
    assert any("stated" in line for line in bench.lines(found))


def test_the_truth_of_the_simulation_is_what_good_people_say() -> None:
    simulation = yaml.safe_load(bench.SETTINGS.read_text(encoding="utf-8"))["simulation"]
    simulation |= {"prompts": {2: 300}, "tie": 1e-9, "spread": 100.0}
    made = bench.simulate(simulation, 2, 0.0, 0)
    votes = made.compared.votes
    # At such differences nobody errs and nobody ties.
    wrong = (votes.label == 2) != made.a_is_better[votes.item]
    assert wrong.mean() < 0.02
    assert np.bincount(votes.item).tolist() == [3] * 300
