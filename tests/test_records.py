"""The import format, content ids, and tables that keep their schema."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.errors import InputError, ProjectError
from annotate.records import (
    SCHEMAS,
    conform,
    content_id,
    output_rows,
    read_import,
    read_table,
    table_from_rows,
    write_table,
)

GOOD = {
    "id": 7,
    "prompt": "Why?",
    "outputs": [{"model": "m", "text": "So."}, {"model": "n", "text": ""}],
}


def write_lines(path: Path, *lines: object) -> Path:
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    )
    return path


def test_import_keeps_the_callers_id_and_an_empty_completion(tmp_path: Path) -> None:
    held = read_import(write_lines(tmp_path / "in.jsonl", GOOD))
    assert held.prompts["prompt_id"].to_pylist() == ["7"]
    assert held.outputs["completion"].to_pylist() == ["So.", ""]
    assert held.quarantine.num_rows == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"prompt": NaN, "outputs": []}', "NaN is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        ([1], "must be a JSON object"),
        ({**GOOD, "prompt": "  \n"}, "the prompt is empty"),
        ({**GOOD, "prompt": []}, '"prompt" must be'),
        ({**GOOD, "prompt": [{"role": "boss", "content": "x"}]}, 'needs "role"'),
        ({**GOOD, "prompt": [{"role": "assistant", "content": "x"}]}, "must not be the assistant"),
        ({**GOOD, "outputs": "answer"}, '"outputs" must be a list'),
        ({**GOOD, "outputs": [{"model": "m", "text": True}] * 2}, 'needs "text"'),
        ({**GOOD, "id": True}, '"id" must be'),
        ({**GOOD, "prompt": "\ud800"}, "lone surrogate"),
        ({**GOOD, "id": "\ud800"}, "lone surrogate"),
        ({**GOOD, "outputs": [{"model": "\ud800", "text": "x"}] * 2}, "lone surrogate"),
        ({**GOOD, "metadata": {"\ud800": 1}}, "lone surrogate"),
        ({**GOOD, "\ud800": 1}, "unknown key"),
        ({**GOOD, "outputs": [{"model": " ", "text": "x"}] * 2}, '"model" is empty'),
        ({**GOOD, "metadata": [1]}, '"metadata" must be'),
        (b'{"prompt": "p", "outputs": ' + b"9" * 5000 + b"}", "a number is too long"),
        (json.dumps({**GOOD, "metadata": {"n": 0}}).replace("0}", "1e999}").encode(), "too large"),
        ({**GOOD, "score": 1}, 'unknown key "score"'),
        ({**GOOD, "prompt": "Other?"}, "stands on line 1 with other content"),
    ],
)
def test_a_bad_line_is_quarantined_with_its_place_and_reason(
    tmp_path: Path, line: object, reason: str
) -> None:
    held = read_import(write_lines(tmp_path / "in.jsonl", GOOD, line, {**GOOD, "id": "8"}))
    assert held.prompts["prompt_id"].to_pylist() == ["7", "8"]
    (row,) = held.quarantine.to_pylist()
    assert row["line"] == 2
    assert row["file"] == "in.jsonl"
    assert reason in row["reason"]


def test_a_repeated_line_is_merged(tmp_path: Path) -> None:
    held = read_import(write_lines(tmp_path / "in.jsonl", GOOD, GOOD))
    assert (held.prompts.num_rows, held.outputs.num_rows, held.merged) == (1, 2, 1)


def test_a_file_without_a_usable_line_is_refused_with_its_first_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in\.jsonl:1: no usable line: not JSON"):
        read_import(write_lines(tmp_path / "in.jsonl", b"{"))
    with pytest.raises(InputError, match="the file is empty"):
        read_import(write_lines(tmp_path / "empty.jsonl"))
    with pytest.raises(InputError, match="no such file"):
        read_import(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="not a file"):
        read_import(tmp_path)


def test_a_compressed_file_is_refused_as_such(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    with pytest.raises(InputError, match="a compressed file"):
        read_import(path)


def test_a_byte_order_mark_and_windows_line_endings_are_no_content(tmp_path: Path) -> None:
    plain = write_lines(tmp_path / "plain.jsonl", GOOD, {**GOOD, "id": "8"})
    windows = tmp_path / "windows.jsonl"
    windows.write_bytes(codecs.BOM_UTF8 + plain.read_bytes().replace(b"\n", b"\r\n"))
    held = read_import(windows)
    assert held.quarantine.num_rows == 0
    assert held.outputs.equals(read_import(plain).outputs)


def test_a_damaged_table_is_one_error_whatever_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, "prompts", table_from_rows("prompts", [{"prompt_id": "p"}] * 100))
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        for damaged in (whole[:at], whole[:at] + b"\xff" * 8 + whole[at + 8 :]):
            path.write_bytes(damaged)
            with contextlib.suppress(ProjectError):  # what is damaged may also not matter
                read_table(path)


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_content_ids_differ_where_content_does(left: list[str], right: list[str]) -> None:
    same = content_id("x", *left) == content_id("x", *right)
    assert same == (left == right)


def test_the_same_completion_twice_from_one_model_has_two_ids() -> None:
    rows = output_rows("p", [("m", "same"), ("m", "same"), ("n", "same")])
    assert len({row["output_id"] for row in rows}) == 3


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_table_survives_parquet_with_its_schema(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / "t.parquet", name, table_from_rows(name, [{}]))
    assert read_table(tmp_path / "t.parquet").schema.equals(SCHEMAS[name])


def test_an_unknown_column_is_a_bug_not_a_silent_loss() -> None:
    with pytest.raises(ValueError, match="no column"):
        conform("prompts", pa.table({"prompt": ["x"]}))
    with pytest.raises(ValueError, match="no column"):
        table_from_rows("prompts", [{"prompt": "x"}])
