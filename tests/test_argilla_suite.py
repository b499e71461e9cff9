"""Argilla's own tests, from its source distribution: our engine, and our patches over HTTP."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ADAPTER = Path(__file__).with_name("argilla_suite")
SOURCE = "argilla-server==2.8.0"
SOURCE_SHA256 = "c3ca464f7e024d1232fde23dbd6014e2c82a7cebd0382de03d7cb3cfae71e4b0"

TOOLS = (
    *("pytest==7.4.4", "pytest-asyncio==0.21.2", "pytest-mock==3.17.0"),
    *("factory_boy==3.2.1", "Faker==40.54.0", "respx==0.22.0"),
)
"""What the suite needs that is older than ours, or not ours at all; to a folder of their own."""

ENGINE_TESTS = "tests/unit/search_engine/test_commons.py"
OF_ELASTICSEARCH = (
    "test_annotator_limits_increasing_default_fields_limit",
    "test_annotators_limits",
    "test_configure_metadata_property",
    "test_create_index_for_dataset",
    "test_create_index_for_dataset_with_fields",
    "test_create_index_for_dataset_with_metadata_properties",
    "test_create_index_for_dataset_with_questions",
    "test_create_metadata_property",
    "test_delete_record_response",
    "test_delete_records",
    "test_index_records",
    "test_index_records_with_metadata",
    "test_index_records_with_none_field_values",
    "test_index_records_with_suggestions",
    "test_index_records_with_vectors",
    "test_update_record_response",
)
"""Tests of that file that look at Elasticsearch's mappings and stored documents: 23 of 115."""


@dataclass(frozen=True)
class Suite:
    """Argilla's tests on the disk, and the Redis that they run on."""

    folder: Path
    redis: str = field(repr=False)


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Suite:
    """The suite, laid out with our conftest for the search engine; skips where PyPI is away."""
    folder = tmp_path_factory.mktemp("suite")
    _pip("download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), SOURCE)
    (archive,) = folder.glob("*.tar.gz")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SOURCE_SHA256
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    (tests,) = folder.glob("*/tests")
    tests.rename(folder / "tests")
    ours = folder / "tests" / "unit" / "search_engine" / "conftest.py"
    shutil.copy(ADAPTER / "engine_conftest.py", ours)
    _pip("install", "--no-deps", "--target", str(folder / "tools"), *TOOLS)
    return Suite(folder, redis_url)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = f"pip {arguments[0]} failed: {done.stderr.strip()[-300:]}"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)


def run(
    suite: Suite, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Run tests of the suite; each one's outcome: passed, failed or skipped."""
    report = folder / "report.json"
    repository = ADAPTER.parent.parent
    places = [suite.folder / "tools", suite.folder, ADAPTER, repository]
    # Its pytest is no worker of ours, even where we are one.
    ours = ("ARGILLA", "PYTEST")
    own = {
        name: value for name, value in os.environ.items() if not any(word in name for word in ours)
    }
    own |= {
        "PYTHONPATH": os.pathsep.join(map(str, places)),
        "HANDLOOM_SUITE_HOME": str(folder),
        "HANDLOOM_SUITE_REPORT": str(report),
        "HANDLOOM_SUITE_REDIS": suite.redis.rsplit("/", 1)[0],
        **(environment or {}),
    }
    plugins = ("cacheprovider", "randomly", "hypothesispytest", "playwright", "pytest_cov")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "suite_adapter", "-W", "ignore"),
            *(word for name in plugins for word in ("-p", f"no:{name}")),
            *("--asyncio-mode=auto", "--tb=short", "--rootdir", str(suite.folder), *arguments),
        ],
        cwd=suite.folder,
        env=own,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert report.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    outcomes: dict[str, str] = json.loads(report.read_text())
    (folder / "output.txt").write_text(done.stdout)
    return outcomes


def failed(outcomes: Mapping[str, str]) -> list[str]:
    return sorted(name for name, outcome in outcomes.items() if outcome == "failed")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_search_engine(
    database: str, suite: Suite, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment = {}
    if database == "postgresql":
        environment["ARGILLA_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    one_class = f"{ENGINE_TESTS}::TestBaseElasticAndOpenSearchEngine"
    left_out = [
        word for name in OF_ELASTICSEARCH for word in ("--deselect", f"{one_class}::{name}")
    ]
    outcomes = run(suite, tmp_path, ENGINE_TESTS, *left_out, environment=environment)
    assert failed(outcomes) == []
    assert list(outcomes.values()).count("passed") == 92


def test_the_api_with_everything_of_ours_fails_nowhere_else(suite: Suite, tmp_path: Path) -> None:
    outcomes = {}
    for equipped in ("0", "1"):
        folder = tmp_path / equipped
        folder.mkdir()
        environment = {"HANDLOOM_SUITE_EQUIP": equipped}
        found = run(suite, folder, "tests/unit/api", "--numprocesses=2", environment=environment)
        assert list(found.values()).count("passed") > 1150
        outcomes[equipped] = found
    assert outcomes["1"].keys() == outcomes["0"].keys()
    assert set(failed(outcomes["1"])) <= set(failed(outcomes["0"]))
