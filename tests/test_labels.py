"""Label tables: what comes in, what is set aside and on which line, what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from annotate.annotations import NO_SPAN, NO_TIME, MultiLabels, Rankings, Spans, Texts
from annotate.errors import InputError
from annotate.label_table import read_label_table
from annotate.labels import encode

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


@pytest.mark.parametrize("separator", [";", "\t"])
def test_columns_stand_apart_as_a_spreadsheet_writes_them(tmp_path: Path, separator: str) -> None:
    lines = ["item,annotator,label", "q,ann,good", "q,bob,bad"]
    text = "\n".join(line.replace(",", separator) for line in lines)
    labels = read_label_table(written(tmp_path / "t.csv", text)).labels
    assert (labels.items, labels.annotators, labels.classes) == (
        ["q"],
        ["ann", "bob"],
        ["bad", "good"],
    )


def test_bad_rows_between_semicolons_have_their_line(tmp_path: Path) -> None:
    text = "item;annotator;label\nq;ann;3,5\nq;bob;3,5\nr;ann;4\nr;bob;\ns;x\n"
    path = written(tmp_path / "t.csv", text)
    assert set_aside(path) == [(5, "no label"), (6, "the row has another number of fields")]
    assert read_label_table(path).quarantine["content"].to_pylist()[1] == "s;x"


def test_a_number_written_twice_is_no_contradiction(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", HEADER + "q,ann,4\nq,ann,4.0\nq,bob,5\nr,ann,4.5\n")
    table = read_label_table(path)
    assert (table.merged, table.quarantine.num_rows) == (1, 0)
    assert table.labels.classes == ["4", "4.5", "5"]


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


def test_optional_columns_say_when_under_what_and_of_which_prompt(tmp_path: Path) -> None:
    text = (
        "item,annotator,label,time,guideline,prompt\n"
        "q,ann,1,2026-01-02T03:04:05Z,g@v10,p\n"
        "q,bob,2,,g@v2,p\n"
        "r,ann,1,2026-01-02T03:04:05+01:00,g@v2,\n"
        "s,ann,1,yesterday,g@v2,\n"
        "t,ann,1,,,p\nt,bob,1,,,o\n"
    )
    path = written(tmp_path / "t.csv", text)
    labels = read_label_table(path).labels
    assert labels.guidelines == ["g@v2", "g@v10"]
    assert labels.guideline is not None
    assert labels.guideline.tolist() == [1, 0, 0]
    assert labels.time is not None
    assert labels.time.tolist() == [1767323045_000000, NO_TIME, 1767319445_000000]
    assert labels.prompt is not None
    assert labels.prompt[labels.item[0]] == labels.prompt[labels.item[1]]
    assert len(set(labels.prompt)) == 2
    assert [reason for _, reason in set_aside(path)] == [
        "its time is not ISO 8601",
        "the item has another prompt too",
        "the item has another prompt too",
    ]


def test_a_table_without_optional_columns_knows_none(tmp_path: Path) -> None:
    labels = read_label_table(written(tmp_path / "t.csv", HEADER + "q,ann,1\n")).labels
    assert (labels.prompt, labels.time, labels.guideline, labels.versions) == (None, None, None, [])
    assert list(labels.by_version()) == [""]


def test_parquets_own_times_are_read(tmp_path: Path) -> None:
    when = pa.array([1_000_000, None], pa.timestamp("us", tz="UTC"))
    columns = {"item": ["q", "r"], "annotator": ["ann", "ann"], "label": ["1", "2"], "time": when}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    time = read_label_table(tmp_path / "t.parquet").labels.time
    assert time is not None
    assert time.tolist() == [1_000_000, NO_TIME]


def test_two_versions_are_apart_until_somebody_pools_them() -> None:
    labels = encode(
        ["q", "q", "q", "r"], ["ann", "ann", "bob", "bob"], ["1", "2", "1", "2"],
        guideline=["g@v1", "g@v2", "g@v1", "g@v2"], time=np.array([5, 4, 1, 1]),
        prompt=["p", "p", "p", ""],
    )  # fmt: skip
    assert labels.versions == ["g@v1", "g@v2"]
    assert {name: len(part) for name, part in labels.by_version().items()} == {"g@v1": 2, "g@v2": 2}
    pooled = labels.pooled()
    # Ann's latest answer to q is the one of time 5, although it is of the older version.
    assert pooled.label.tolist() == [0, 0, 1]
    assert pooled.versions == []
    assert pooled.prompt is labels.prompt
    untimed = encode(["q", "q"], ["ann", "ann"], ["1", "2"], guideline=["v10", "v2"]).pooled()
    assert [untimed.classes[code] for code in untimed.label] == ["1"]
    with pytest.raises(ValueError, match="twice"):
        encode(["q", "q"], ["ann", "ann"], ["1", "2"], guideline=["v1", "v1"])
    with pytest.raises(ValueError, match="two prompts"):
        encode(["q", "q"], ["ann", "bob"], ["1", "2"], prompt=["o", "p"])


def test_selecting_keeps_every_column_in_step() -> None:
    labels = encode(
        ["q", "r", "r"], ["ann", "ann", "bob"], ["1", "2", "1"],
        guideline=["v1", "v1", "v2"], time=np.array([1, 2, 3]),
    )  # fmt: skip
    bobs = labels.without(["ann", "nobody"])
    assert bobs.time is not None
    assert (bobs.item.tolist(), bobs.time.tolist(), bobs.versions) == ([1], [3], ["v2"])
    assert bobs.items == labels.items
    assert len(labels.without(["ann", "bob"])) == 0


def test_other_kinds_of_answers_are_selected_alike() -> None:
    who = {"item": np.array([0, 0]), "annotator": np.array([0, 1])}
    names = {"items": ["q"], "annotators": ["ann", "bob"]}
    kinds = [
        MultiLabels(**who, **names, member=sp.csr_array(np.eye(2)), classes=["x", "y"]),
        Rankings(**who, **names, option=np.array([0, 0]), rank=np.array([1, 2]), options=["o"]),
        Texts(**who, **names, text=np.array(["a", "b"], dtype=object)),
        Spans(
            **who, **names, start=np.array([0, 0]), end=np.array([2, 0]),
            label=np.array([0, NO_SPAN]), length=np.array([9]), classes=["x"],
        ),
    ]  # fmt: skip
    for kind in kinds:
        rest = kind.without(["ann"])
        assert rest.annotator.tolist() == [1]
        assert len(rest) == len(rest.pooled()) == 1
    assert kinds[0].without(["ann"]).member.toarray().tolist() == [[0.0, 1.0]]


def test_a_label_that_a_check_refuses_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    path = written(tmp_path / "l.csv", HEADER + "q,ann,7\nq,bob,x\nr,ann,x\nr,,x\ns,ann,7.0\n")
    table = read_label_table(path, check=lambda text: "no digit" if text == "x" else "")
    rows = [(row["line"], row["reason"]) for row in table.quarantine.to_pylist()]
    assert rows == [(3, "no digit"), (4, "no digit"), (5, "no annotator")]
    assert table.labels.classes == ["7"]


def test_texts_that_happen_to_be_numbers_stay_apart(tmp_path: Path) -> None:
    path = written(tmp_path / "l.csv", HEADER + "q,ann,2\nq,bob,2.0\n")
    assert read_label_table(path, numbers=False).labels.classes == ["2", "2.0"]


def test_infinite_ratings_are_set_aside_and_infinite_words_are_words(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", HEADER + "q,ann,1\nq,bob,inf\nr,ann,-Infinity\nr,bob,2\n")
    reason = "its label is not a finite number"
    assert set_aside(path) == [(3, reason), (4, reason)]
    assert read_label_table(path).labels.values.tolist() == [1.0, 2.0]
    words = written(tmp_path / "w.csv", HEADER + "q,ann,inf\nq,bob,sup\n")
    assert read_label_table(words).labels.classes == ["inf", "sup"]
