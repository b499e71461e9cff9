"""The benchmark of the queue at its smallest: it runs, and reads its curves as worked by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

BENCH = Path(__file__).parents[1] / "bench" / "queueing.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_queueing", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_queueing"] = module
    spec.loader.exec_module(module)
    return module


def test_a_target_is_reached_between_the_points_that_enclose_it(bench: ModuleType) -> None:
    grid, curve = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.7, 0.8])
    assert bench.labels_to_reach(grid, curve, 0.6) == pytest.approx(1.5)
    assert bench.labels_to_reach(grid, curve, 0.4) == 1.0
    assert bench.labels_to_reach(grid, curve, 0.8 + 2e-13) == pytest.approx(3.0)
    assert np.isnan(bench.labels_to_reach(grid, curve, 0.9))


def test_the_ratio_is_of_the_mean_curve_and_what_is_not_reached_saves_nothing(
    bench: ModuleType,
) -> None:
    grid = np.array([1.0, 2.0])
    chosen = np.array([[0.5, 0.7], [0.5, 0.9]])  # 0.5 and 0.8 on average
    found = bench.compared(grid, np.array([[0.65], [0.65]]), chosen, [2], 200)["uniform-2"]
    assert found["ratio"] == 0.75  # 0.65 is halfway: 1.5 labels of 2
    none = bench.compared(grid, np.array([[0.95], [0.95]]), chosen, [2], 200)["uniform-2"]
    assert (none["ratio"], none["interval"], none["reason"]) == (None, [None, None], "not reached")


def test_every_panel_and_way_has_its_ratios(bench: ModuleType) -> None:
    settings = yaml.safe_load((BENCH.with_suffix(".yaml")).read_text())
    settings["simulation"]["pairs"] = 60
    settings["policy"]["step"] = 0.5
    result = bench.run(settings | {"seeds": 2, "resamples": 50}, None)
    for panel in ("simulated_15", "simulated_35"):
        for way in ("at_most_5", "at_most_8", "at_most_5_by_reliable"):
            assert set(result[panel][way]) == {"uniform-3", "uniform-4", "uniform-5"}
