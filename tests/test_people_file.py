"""A file of annotators: every good line counts, every bad one has its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.errors import InputError
from annotate.people_file import NAME, BadLine, Person, read_people


def read(tmp_path: Path, content: str | bytes) -> tuple[list[Person], list[BadLine]]:
    path = tmp_path / "people.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_people(path)


def test_columns_in_any_order_and_only_the_name_is_needed(tmp_path: Path) -> None:
    people, bad = read(
        tmp_path,
        "\ufeffRole,Name,workspaces,first name,last_name\r\n"
        "admin,lena,round2  team-a,Lena,Öz\r\n"
        ",jonas,,,\r\n",
    )
    assert bad == []
    assert people == [
        Person("lena", "Lena", "Öz", "admin", ("round2", "team-a")),
        Person("jonas"),
    ]
    assert read(tmp_path, "name;workspace\nanna;round1\n")[0] == [
        Person("anna", workspaces=("round1",))
    ]


def test_bad_lines_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    people, bad = read(
        tmp_path,
        b"name,first_name,role\n"
        b"anna,Anna,annotator\n"
        b"two words,,\n"
        b"ben,Ben,boss\n"
        b"ida,Ida\n"
        b",Nobody,\n"
        b"\xff\xfe,,\n"
        b'car"la,"Carla,\n'
        b"\n"
        b"jo,Jo,\n",
    )
    assert [person.name for person in people] == ["anna", "jo"]
    assert [line.line for line in bad] == [3, 4, 5, 6, 7, 8]
    said = " / ".join(line.reason for line in bad)
    for reason in ("'two words'", "'boss' is no role", "2 cells instead of 3", "no name", "UTF-8"):
        assert reason in said


def test_a_workspace_that_argilla_cannot_use_is_told(tmp_path: Path) -> None:
    people, bad = read(
        tmp_path, "name,workspace\nanna,München\nben,hand/loom\nida,round-2 team_a\n"
    )
    assert people == [Person("ida", workspaces=("round-2", "team_a"))]
    assert [line.line for line in bad] == [2, 3]
    for line, name in zip(bad, ("München", "hand/loom"), strict=True):
        assert f"{name!r} cannot be a workspace's name" in line.reason
        assert "letters (a to z, A to Z), digits, - and _" in line.reason


def test_one_person_on_several_lines(tmp_path: Path) -> None:
    people, bad = read(
        tmp_path,
        "name,first_name,workspace\nanna,Anna,round1\nanna,,round2\nanna,Hanna,round3\n",
    )
    assert people == [Person("anna", "Anna", workspaces=("round1", "round2"))]
    assert bad == [BadLine(4, "line 2 says otherwise of anna")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("user,role\nanna,\n", "unknown column 'user'"),
        ("role\nadmin\n", "no single column `name`"),
        ("name,name\na,b\n", "no single column `name`"),
    ],
)
def test_a_file_without_a_usable_header(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(tmp_path, content)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_people(tmp_path / "none.csv")


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_whatever_the_lines_are(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    """Each line counts, is told with a reason, or is blank."""
    folder = tmp_path_factory.mktemp("people")
    one_line = [line.replace(b"\n", b" ").replace(b"\r", b" ") for line in lines]
    people, bad = read(folder, b"name,first_name\n" + b"\n".join(one_line) + b"\nzoe,Zoe\n")
    assert all(NAME.fullmatch(person.name) for person in people)
    assert "zoe" in [person.name for person in people] or any(
        "otherwise of zoe" in line.reason for line in bad
    )
    assert {line.line for line in bad} <= set(range(2, len(lines) + 3))
