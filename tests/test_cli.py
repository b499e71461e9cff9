"""The command line as a whole: order, help, speed of `--help`, errors in one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from align.cli import main
from annotate.cli import LoopGroup

HEAVY = ("torch", "transformers", "trl", "argilla", "argilla_server", "pandas", "pyarrow", "scipy")


def commands() -> list[tuple[str, click.Command]]:
    found = []
    for name, command in main.commands.items():
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", inner) for sub, inner in command.commands.items()]
        else:
            found.append((name, command))
    return found


def test_help_lists_the_commands_in_the_order_of_the_loop() -> None:
    names = list(main.commands)
    loop = ["init", "up", "import", "generate", "push", "pull", "agreement", "judge", "build"]
    loop += ["train", "evaluate", "failures", "rounds", "dashboard", "runs", "verify", "trace"]
    assert [name for name in names if name in loop] == loop
    assert "demo" in names


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from align.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_command_and_option_is_explained(name: str, command: click.Command) -> None:
    assert command.help, name
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [option.name for option in options if not option.help] == []
    shown = CliRunner().invoke(main, [*name.split(), "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs"],
        ["push"],
        ["pull"],
        ["judge"],
        ["build"],
        ["train", "nothing.yaml"],
        ["evaluate"],
        ["failures"],
        ["trace", "x"],
        ["rounds"],
    ],
    ids=" ".join,
)
def test_outside_a_project_every_command_says_so_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1, result.output
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1
    assert "handloom init" in result.output


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "error: some/file: the disk is full (No space left on device). Free some"),
        (errno.EFBIG, "error: some/file: the disk is full (File too large). Free some space"),
        (errno.EACCES, "error: some/file: this may not be read or written (Permission denied)."),
        (errno.EROFS, "error: some/file: this may not be read or written (Read-only file system)."),
    ],
)
def test_what_the_system_refuses_is_one_line_and_the_rest_a_bug(number: int, said: str) -> None:
    group = LoopGroup()

    @group.command("write")
    @click.argument("number", type=int)
    def write(number: int) -> None:
        raise OSError(number, os.strerror(number), "some/file")

    result = CliRunner().invoke(group, ["write", str(number)])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert result.output.startswith(said)
    bug = CliRunner().invoke(group, ["write", str(errno.EIO)])
    assert isinstance(bug.exception, OSError)
