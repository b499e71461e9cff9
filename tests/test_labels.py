"""Label tables: what comes in, what is set aside and on which line, what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.errors import InputError
from annotate.labels import encode, read_label_table

HEADER = "item,annotator,label\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def set_aside(path: Path) -> list[tuple[int, str]]:
    rows = read_label_table(path).quarantine.to_pylist()
    return [(row["line"], row["reason"]) for row in rows]


@given(
    st.dictionaries(
        st.tuples(st.text("abc", min_size=1), st.text("xy", min_size=1)), st.sampled_from("pqr")
    )
)
def test_codes_give_the_answers_back(answers: dict[tuple[str, str], str]) -> None:
    columns = [[*column] for column in zip(*((*k, v) for k, v in answers.items()), strict=True)]
    labels = encode(*(columns or [[], [], []]))
    back = {
        (labels.items[i], labels.annotators[a]): labels.classes[c]
        for i, a, c in zip(labels.item, labels.annotator, labels.label, strict=True)
    }
    assert back == answers


def test_numbers_are_classes_by_size_and_words_by_text() -> None:
    labels = encode(["q", "r", "s"], ["ann"] * 3, ["10", "2.0", "2"])
    assert labels.classes == ["2", "10"]
    assert labels.label.tolist() == [1, 0, 0]
    assert labels.values.tolist() == [2.0, 10.0]
    words = encode(["q", "r"], ["ann"] * 2, ["good", "2"])
    assert words.classes == ["2", "good"]
    assert np.isnan(words.values).all()


def test_numbers_too_long_for_a_float_stay_apart() -> None:
    long = ["90071992547409921", "90071992547409922"]
    assert encode(["q", "r"], ["ann"] * 2, long).classes == long


def test_an_annotator_has_one_answer_an_item() -> None:
    with pytest.raises(ValueError, match="twice"):
        encode(["q", "q"], ["ann", "ann"], ["1", "2"])
    with pytest.raises(ValueError, match="outside the classes"):
        encode(["q"], ["ann"], ["c"], ["a", "b"])


def test_csv_and_parquet_read_alike(tmp_path: Path) -> None:
    csv = written(tmp_path / "t.csv", "note,label,item,annotator\nx,1, q ,ann\ny,2,q,bob\n")
    table = pa.table({"item": ["q", "q"], "annotator": ["ann", "bob"], "label": [1.0, 2.0]})
    pq.write_table(table, tmp_path / "t.parquet")
    one, two = (read_label_table(path).labels for path in (csv, tmp_path / "t.parquet"))
    assert (one.items, one.annotators, one.classes) == (["q"], ["ann", "bob"], ["1", "2"])
    assert (two.items, two.annotators, two.classes) == (["q"], ["ann", "bob"], ["1", "2"])
    assert one.label.tolist() == two.label.tolist()


def test_bad_rows_are_set_aside_with_line_and_reason(tmp_path: Path) -> None:
    text = HEADER + 'q,ann,good\n"r\n2",ann,good\n\n,ann,good\ns,,good\ns,ann,NaN\nx,y\nq,bob,bad\n'
    path = written(tmp_path / "t.csv", text)
    assert set_aside(path) == [
        (6, "no item"),
        (7, "no annotator"),
        (8, "no label"),
        (9, "the row has another number of fields"),
    ]
    assert read_label_table(path).labels.items == ["q", "r\n2"]


def test_repeats_are_merged_and_contradictions_set_aside_whole(tmp_path: Path) -> None:
    rows = "q,ann,good\nq,ann,good\nr,ann,good\nr,ann,bad\nr,ann,good\nr,bob,bad\n"
    path = written(tmp_path / "t.csv", HEADER + rows)
    table = read_label_table(path)
    assert table.merged == 1
    assert len(table.labels) == 2
    reason = "the annotator gives this item another label too"
    assert set_aside(path) == [(4, reason), (5, reason), (6, reason)]
    assert 2 + table.merged + table.quarantine.num_rows == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item,annotator\nq,ann\n", r't\.csv:1: column "label" is missing .there are: "item", "a'),
        ("item, annotator,label\n", r'"annotator" is missing .there are: "item", " annotator"'),
        ("item,annotator,label,label\n", r't\.csv:1: column "label" stands there twice'),
        ("", r't\.csv:1: column "item" is missing'),
        (HEADER, r"t\.csv:1: no usable row: the file has no rows"),
        (HEADER + "q,ann,\n", r"t\.csv:2: no usable row: no label"),
    ],
)
def test_a_useless_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_label_table(written(tmp_path / "t.csv", text))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_label_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="not a file"):
        read_label_table(tmp_path)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(HEADER.encode()))
    with pytest.raises(InputError, match="compressed"):
        read_label_table(tmp_path / "t.csv.gz")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_label_table(written(tmp_path / "t.parquet", HEADER))
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + "q,ann,gänzlich\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv"):
        read_label_table(tmp_path / "latin.csv")
    lists = pa.table({"item": ["q"], "annotator": ["ann"], "label": [["a"]]})
    pq.write_table(lists, tmp_path / "lists.parquet")
    with pytest.raises(InputError, match="neither text nor number"):
        read_label_table(tmp_path / "lists.parquet")
    bytes_ = pa.table({"item": ["q"], "annotator": [b"\xff"], "label": ["a"]})
    pq.write_table(bytes_, tmp_path / "bytes.parquet")
    with pytest.raises(InputError, match="neither text nor number"):
        read_label_table(tmp_path / "bytes.parquet")
