"""The command line as a whole: order, help, speed of `--help`, errors in one line."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from loop_runs import generated, judged, new_project, trained
from preference_runs import built, recipe
from tiny_model import write_tiny_model

from align.card import interval_text
from align.cli import main
from annotate.cli import LoopGroup
from annotate.runs import Project
from annotate.statistics import wilson

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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = new_project(tmp_path / "project")
    monkeypatch.chdir(project.root)
    return project


def a_later_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed next is typed when every run so far is finished."""
    monkeypatch.setattr("annotate.cli._STARTED", datetime.now(UTC) + timedelta(seconds=1))


def test_a_run_that_was_there_before_is_said_to_be(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("one.jsonl").write_text('{"prompt": "hi", "outputs": [{"model": "m", "text": "yes"}]}\n')
    new = CliRunner().invoke(main, ["import", "one.jsonl"])
    run = project.latest("import")
    assert new.output.startswith(f"{run.id}: 1 prompt, 1 output\n")
    a_later_command(monkeypatch)
    when = run.manifest["finished"][:16].replace("T", " ")
    same = CliRunner().invoke(main, ["import", "one.jsonl"])
    said = f"; made before ({when}); --again makes another\n"
    assert same.output == new.output.replace("1 output\n", f"1 output{said}")
    # What a command makes nothing of was not made before either.
    whole = trained(project, "base", 0, (), seed=0)
    merged = CliRunner().invoke(main, ["merge", whole.id])
    assert merged.output.startswith(f"{whole.id}: it holds a whole model already, in model/\n")


def test_build_says_how_many_rows_are_held_out(project: Project) -> None:
    prompts = {f"prompt {n}": ["good", "bad"] for n in range(5)}
    judged(project, generated(project, prompts), {text: [3, 3] for text in prompts})
    done = CliRunner().invoke(main, ["build"])
    sides = project.latest("build").metrics["preference"]
    pairs = f"5 preference pairs (of which {sides.get('eval', 0)} held out) and "
    assert pairs in done.output
    assert "SFT rows (of which " in done.output


def test_train_says_what_it_came_to_and_to_look_first_where_that_is_bad(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(project, n=8)
    path = recipe(project, write_tiny_model(tmp_path / "tiny"), "dpo", num_train_epochs=1)
    words = ["train", str(path)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    run = project.latest("train")
    said = f"dpo model after 2 steps, mean training loss {run.metrics['train_loss']:.3f}, "
    share = wilson(2 * run.metrics["eval_rewards/accuracies"], 2)
    said += f"held-out rewards/accuracies {interval_text(share.to_dict())} of 2 pairs"
    assert done.stdout.startswith(f"{run.id}: {said}, from ")
    assert f"next handloom evaluate {run.id}\n" in done.stdout
    a_later_command(monkeypatch)
    diverged = [{"step": step, "loss": 0.5 if step < 20 else 50.0 + step} for step in range(1, 61)]
    (run.path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in diverged))
    done = CliRunner().invoke(main, words)
    assert "--again makes another\n" in done.stdout
    assert f"next handloom health {run.id}  (look first: divergence" in done.stdout


def test_generate_shows_where_quarantined_lines_stand(project: Project, tmp_path: Path) -> None:
    Path("p.jsonl").write_text('{"prompt": "hi"}\n' + "nonsense\n" * 7)
    model = str(write_tiny_model(tmp_path / "tiny"))
    words = ["generate", model, "--prompts", "p.jsonl", "--n", "1", "--max-new-tokens", "4"]
    done = CliRunner().invoke(main, words)
    assert "1 completion of 1 prompt, 7 rows quarantined" in done.stdout, done.output
    said = [line for line in done.stderr.splitlines() if "p.jsonl:" in line]
    assert [line.split(": ")[0] for line in said] == [f"p.jsonl:{n}" for n in range(2, 7)]
    assert "not JSON" in said[0]
    assert "and 2 more, in the run's table quarantine" in done.stderr
