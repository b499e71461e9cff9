"""The commands between outputs and responses, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from factories import Argilla, connected_project, submit

from align.cli import main
from annotate.judge import newest_pulls
from annotate.runs import Project
from annotate.server import connect
from annotate.support_desk import dialogues


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = connected_project(tmp_path / "project", argilla_server, monkeypatch)
    monkeypatch.chdir(project.root)
    return project


def handloom(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def write_outputs(path: Path, n: int = 6) -> None:
    with path.open("w") as file:
        for number, turns in enumerate(dialogues(n, seed=3)):
            answers = [turns[-1]["content"], "Read the manual."]
            outputs = [{"model": f"m{k}", "text": text} for k, text in enumerate(answers)]
            file.write(json.dumps({"id": f"p{number}", "prompt": turns[:-1], "outputs": outputs}))
            file.write("\n")
        file.write('{"prompt": "", "outputs": []}\n')


def test_pull_fetches_every_push_of_the_round(project: Project) -> None:
    """An answer that is edited in an earlier batch counts, whatever was pushed since."""
    write_outputs(project.root / "outputs.jsonl")
    for arguments in (["import", "outputs.jsonl"], ["push"], ["simulate"], ["pull"]):
        assert handloom(*arguments).exit_code == 0
    first = project.latest("pull")
    earlier = first.ancestor("push")
    item = first.read("items")["item_id"][0].as_py()
    write_outputs(project.root / "more.jsonl", n=3)
    for arguments in (["import", "more.jsonl"], ["push", "--seed", "5"]):
        done = handloom(*arguments)
        assert done.exit_code == 0, done.output
    later = project.latest("push")
    submit(project, earlier, "late-reviser", {item: {"preference": {"value": "a_better"}}})
    done = handloom("pull")
    assert done.exit_code == 0, done.output
    pulls = {run.ancestor("push").id: run for run in newest_pulls(project)}
    assert set(pulls) == {earlier.id, later.id}
    again = pulls[earlier.id]
    assert again.metrics["submitted"] == first.metrics["submitted"] + 1
    one, other, *_ = done.stdout.splitlines()
    assert one.startswith(f"{again.id}: ")
    assert f"): {again.metrics['submitted']} submitted responses of " in one
    assert other.startswith(f"{pulls[later.id].id}: {later.metrics['batches'][0]} (preference@v")
    assert "): 0 submitted responses of 0 annotators" in other
    assert done.stdout.splitlines()[-1].strip() == "next handloom judge"
    with connect(
        project
    ) as server:  # the earlier batch goes; the newer one is fetched all the same
        server.request("DELETE", f"datasets/{server.batch(earlier.metrics['batches'][0]).id}")
    done = handloom("pull")
    assert done.exit_code == 0, done.output
    assert f"{earlier.id}: " in done.stderr
    assert "is not on this server" in done.stderr
    assert done.stdout.startswith(f"{pulls[later.id].id}: ")


def test_import_push_simulate_pull_trace(project: Project) -> None:
    write_outputs(project.root / "outputs.jsonl")
    imported = handloom("import", "outputs.jsonl")
    assert imported.exit_code == 0, imported.output
    assert "outputs.jsonl:7: the prompt is empty" in imported.output
    assert "6 prompts, 12 outputs, 1 line quarantined" in imported.output
    pushed = handloom("push", "--seed", "3")
    assert "6 items in r1-preference-" in pushed.output, pushed.output
    again = handloom("push", "--seed", "3")
    assert again.output == pushed.output
    simulated = handloom("simulate", "--votes", "3")
    assert "18 simulated responses" in simulated.output, simulated.output
    pulled = handloom("pull")
    assert "18 submitted responses of 6 annotators, 6 of 6 items" in pulled.output, pulled.output
    assert handloom("pull").output == pulled.output
    item = project.latest("push").read("items")["item_id"][0].as_py()
    text = handloom("trace", item).output
    assert text.count("preference@v2: preference {") == 3
    assert len(json.loads(handloom("trace", item, "--json").output)["responses"]) >= 3
    listed = handloom("runs").output.splitlines()
    assert [line.split("-")[1] for line in listed] == ["import", "push", "pull"]
    assert "12 outputs, 6 prompts" in listed[0]
    whole, ledger = handloom("verify").output.splitlines()
    assert whole.startswith("3 runs verified")
    assert ledger == "ledger verified: 18 lines in an unbroken chain"
    assert "ledger" not in handloom("verify", project.latest("push").id).output
    assert [run["step"] for run in json.loads(handloom("runs", "--json").output)["runs"]] == [
        "import",
        "push",
        "pull",
    ]
    assert handloom("verify").exit_code == 0


def test_verify_looks_at_the_ledger_too(project: Project) -> None:
    write_outputs(project.root / "outputs.jsonl", 2)
    for arguments in (["import", "outputs.jsonl"], ["push"], ["simulate"], ["pull"]):
        assert handloom(*arguments).exit_code == 0
    ledger = project.state_dir / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace("submitted", "discarded", 1))
    result = handloom("verify")
    assert result.exit_code == 1
    assert "ledger: line 1 was changed" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "nothing.jsonl"], "nothing.jsonl: no such file"),
        (["push"], "there is no failures or generate or import run yet"),
        (["simulate"], "there is no push run yet"),
        (["pull"], "there is no push run yet"),
        (["pull", "r9-push-0"], "no such run"),
        (["trace", "x-1"], "no run knows this id"),
        (["users", "add", "not a name"], "cannot be a user's name"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_one_line(project: Project, arguments: list[str], said: str) -> None:
    result = handloom(*arguments)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1
    assert said in result.output


def test_users_are_added_and_listed(project: Project) -> None:
    name = f"{project.root.parent.name.replace('_', '-')[:50]}-zoe"
    added = handloom("users", "add", name)
    assert "1 annotator may log in at http://" in added.output, added.output
    listed = handloom("users", "list").output
    assert "password in .handloom/users.json" in next(
        line for line in listed.splitlines() if line.startswith(name)
    )
    password = json.loads((project.state_dir / "users.json").read_text())[name]
    assert password not in added.output + listed
