"""What DESIGN and docs/structure.md say of the structure, held against the code."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("annotate", "align", "streamlit_app")


def tracked(*patterns: str) -> list[Path]:
    """Files of the working tree that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def test_the_import_contracts_hold() -> None:
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml")) == EXIT_STATUS_SUCCESS


def test_the_contracts_name_every_module_of_the_peoples_side() -> None:
    """import-linter takes lists of what is forbidden: a new module must not slip past them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    lists = {contract["name"]: contract for contract in contracts["contracts"]}
    modules = {
        f"annotate.{path.stem}"
        for path in tracked("annotate/*.py")
        if path.parent.name == "annotate" and path.stem != "__init__"
    } | {
        f"annotate.{path.parent.name}"
        for path in tracked("annotate/*/__init__.py")
        if path.parent.parent.name == "annotate"
    }
    known_to_align = {"annotate.errors", "annotate.records", "annotate.runs"}
    known_to_align |= {"annotate.statistics", "annotate.support_desk"}
    hidden = set(lists["align knows only the foundations of annotate"]["forbidden_modules"])
    assert hidden == modules - known_to_align
    touching = {"annotate.server", "annotate.settings", "annotate.embedded"}
    apart = set(lists["only server, settings and embedded touch Argilla"]["source_modules"])
    assert apart == (modules - touching) | {"align", "streamlit_app"}


def test_the_tree_gives_every_source_file_a_phrase() -> None:
    tree = (ROOT / "docs" / "structure.md").read_text()
    sources = [
        path
        for path in tracked("*.py")
        if path.relative_to(ROOT).parts[0] in PACKAGES and path.name != "__init__.py"
    ]
    missing = [
        str(path.relative_to(ROOT))
        for path in sources
        if not re.search(rf"(?<![\w/]){re.escape(path.name)}\s+\S", tree)
    ]
    assert missing == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_what_it_is(package: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in tracked(f"{package}/*.py")
        if not path.read_text().lstrip().startswith('"""')
    ]
    assert silent == []


def test_no_source_unpickles_or_trusts_remote_code_by_default() -> None:
    for path in tracked("annotate/*.py", "align/*.py", "streamlit_app/*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) (pickle|dill|joblib)\b", text, re.M), path
        assert "trust_remote_code=True" not in text, path


def test_no_tracked_file_names_a_home_or_scratch_folder() -> None:
    places = re.compile(r"(?<![\w.])/(?:root|home|work|tmp)/[\w.]+")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked("*.py", "*.md", "*.toml", "*.yaml", "*.json", "Makefile", ".ci/*")
        for match in places.finditer(path.read_text(errors="replace"))
    ]
    assert found == []
