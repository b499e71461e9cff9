"""How fast Argilla is with Handloom: records in and out, an annotator's waits, memory and disk.

    python bench/argilla.py [--quick] [--records N] [--repeats N] [--sizes N N] [--folder DIR]

Two embedded servers run side by side, one with `--no-patches`: Argilla 2.8.0 as it came, with the
same search engine. `push_ratio` and `pull_ratio` compare our client on the patched server with
Argilla's SDK (`dataset.records.log`, `list(dataset.records(...))`) on the other, in turn, records
with fields, metadata, vectors, suggestions and responses. Then data sets of 100,000 and 1,000,000
records are put into a database by SQL and indexed at the server's start, and an annotator asks over
HTTP for what the web page asks for; every answer is checked.

Milliseconds are p50 and p95; ratios medians of pairs with Student's 95 % interval. The load of the
machine is in the result: on a busy one the figures are not worth much. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Run as a script, Python looks for modules in this folder first and takes this file for Argilla.
sys.path[0] = str(Path(__file__).resolve().parent.parent)
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TQDM_DISABLE"] = "1"

RECORDS, REPEATS = 2000, 5
SIZES = (100_000, 1_000_000)
ASKED = 50
"""Times that each operation is asked for."""


def say(text: str) -> None:
    """A line of progress."""
    from rich.console import Console

    Console(stderr=True).print(text, highlight=False)


def rates(folder: Path, n: int, repeats: int) -> dict[str, Any]:
    """Records a second both ways, side by side."""
    from bench import argilla_rates
    from bench.argilla_server import running

    with (
        running(folder / "stock" / "argilla", patched=False) as stock,
        running(folder / "patched" / "argilla") as patched,
    ):
        say(f"push and pull of {n:,} records, {repeats} times")
        return argilla_rates.measure(stock, patched, n, repeats, say)


def at_size(folder: Path, n: int, asked: int) -> dict[str, Any]:
    """Latencies, index and memory with so many records."""
    from annotate.progress import progress
    from bench import argilla_latency
    from bench.argilla_server import Seed, make_dataset, running

    home = folder / str(n) / "argilla"
    with running(home) as server:
        dataset_id = str(make_dataset(server, "seeded").id)
    with progress(f"seed {n:,} records", n) as advance:
        for added in Seed(home, dataset_id).records(n):
            advance(added)
    say(f"index {n:,} records")
    with running(home) as server:
        records, seconds = server.reindexing()
        peak = server.memory()["peak_mb"]
        with server.ours() as client:
            client.flush()
        say(f"{records / seconds:,.0f} records/s; ask {asked} times as an annotator")
        found = argilla_latency.measure(server, dataset_id, n, asked)
        memory = server.memory()["rss_mb"]
    files = (home / "index").glob(f"*{dataset_id}*")
    return {
        **found,
        "reindex_records_per_s": records / seconds,
        "reindex_rss_mb": peak,
        "server_rss_mb": memory,
        "index_bytes_per_record": sum(file.stat().st_size for file in files) / n,
    }


def summarise(rated: dict[str, Any], sized: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Everything in one object; figures without a size are those of the largest."""
    small, large = sized.values()
    return {
        "push_ratio": round(rated["push_ratio"]["median"], 2),
        "pull_ratio": round(rated["pull_ratio"]["median"], 2),
        "push_ratio_ci95": rated["push_ratio"]["ci95"],
        "pull_ratio_ci95": rated["pull_ratio"]["ci95"],
        "p50_ms_100k": small["p50_ms"],
        "p95_ms_100k": small["p95_ms"],
        "p50_ms_1m": large["p50_ms"],
        "p95_ms_1m": large["p95_ms"],
        "records_per_s": {
            name: round(figure, 1) for name, figure in rated.items() if name.endswith("_per_s")
        },
        **{
            name: round(large[name], 1)
            for name in (
                "index_bytes_per_record",
                "server_rss_mb",
                "reindex_records_per_s",
                "reindex_rss_mb",
            )
        },
        "sizes": list(sized),
        "load": os.getloadavg(),
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("argilla", "argilla-server", "handloom")},
        },
    }


def main() -> None:
    """Parse, run, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: about a minute")
    parser.add_argument("--records", type=int, help=f"pushed and pulled at a time [{RECORDS}]")
    parser.add_argument("--repeats", type=int, help=f"of push and pull [{REPEATS}]")
    parser.add_argument("--sizes", type=int, nargs=2, help="records searched [100000 1000000]")
    parser.add_argument("--asked", type=int, help=f"times each operation is asked for [{ASKED}]")
    parser.add_argument("--folder", type=Path, help="where databases are made [a temporary one]")
    options = parser.parse_args()
    quick = options.quick
    n = options.records or (250 if quick else RECORDS)
    repeats = options.repeats or (2 if quick else REPEATS)
    sizes = options.sizes or ([2000, 5000] if quick else SIZES)
    asked = options.asked or (10 if quick else ASKED)
    with tempfile.TemporaryDirectory(prefix="handloom-bench-", dir=options.folder) as made:
        folder = Path(made)
        load = os.getloadavg()
        rated = rates(folder, n, repeats)
        sized = {size: at_size(folder, size, asked) for size in sizes}
    found = {**summarise(rated, sized), "n": n, "repeats": repeats, "load_before": load}
    for name, figures in sized.items():
        print(f"{name:>9,} records   p50 ms   p95 ms")
        for operation, p50 in figures["p50_ms"].items():
            print(f"  {operation:16} {p50:8.1f} {figures['p95_ms'][operation]:8.1f}")
    print(f"push {found['push_ratio']} times, pull {found['pull_ratio']} times as fast")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
