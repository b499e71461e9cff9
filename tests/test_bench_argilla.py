"""The benchmark of Argilla at its smallest: it runs, answers are right, figures are there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OPERATIONS = {
    "next_page",
    "text",
    "text_every",
    "metadata_terms",
    "metadata_range",
    "sort_metadata",
    "similarity",
    "progress",
}


@pytest.mark.slow
def test_the_benchmark_measures_everything(tmp_path: Path) -> None:
    small = "--records 40 --repeats 2 --sizes 1000 1500 --asked 2".split()
    done = subprocess.run(
        [sys.executable, "bench/argilla.py", *small, "--folder", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for size in ("100k", "1m"):
        for quantile in ("p50", "p95"):
            assert found[f"{quantile}_ms_{size}"].keys() >= OPERATIONS
    figures = ["push_ratio", "pull_ratio", "index_bytes_per_record", "server_rss_mb"]
    figures += ["reindex_records_per_s", "reindex_rss_mb"]
    assert all(found[name] > 0 for name in figures)
    assert found.keys() >= {"n", "repeats", "versions", "push_ratio_ci95", "pull_ratio_ci95"}
    assert list(tmp_path.iterdir()) == []
