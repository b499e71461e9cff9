"""The benchmark of agreement and consensus at its smallest: it runs, and all find the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_benchmark_measures_everything_and_all_find_the_same() -> None:
    small = "--items 2000 --growth 4000 --repeats 1".split()
    ran = subprocess.run(
        [sys.executable, "bench/judgements.py", *small],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ran.stdout.splitlines()[-1])
    measures = {"alpha_ordinal", "ac2", "dawid_skene", "kappas", "majority"}
    for figure in ("seconds", "rss_mb"):
        assert set(found[figure]) == measures
        assert all(set(of) == {"8000", "16000"} for of in found[figure].values())
    assert set(found["ratio"]) == {"krippendorff", "crowd-kit", "cleanlab", "scikit-learn"}
    for library in ("krippendorff", "cleanlab", "scikit-learn"):
        assert found["ratio"][library]["same"] == 1.0
    # Sixteen answers a person: our prior holds what crowd-kit's confusion matrices cannot know.
    assert found["ratio"]["crowd-kit"]["same"] > 0.7
