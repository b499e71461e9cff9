"""One side of the comparison in `training.py`, in a process of its own.

    python bench/training_side.py {trl,off,on}

Reads one job a line on stdin, as JSON, and answers each with a line of JSON on stdout. `trl` is the
script that TRL's documentation shows, with the arguments that a CPU needs; `off` and `on` are
Handloom's own trainers without and with `speed`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import yaml

from annotate.records import table_from_rows
from annotate.runs import Project, RunPlan

RATES = {"dpo": 5.0e-4, "sft": 1.0e-3}
LENGTH = 512
"""Tokens of prompt and completion together."""

Job = dict[str, Any]


def arguments(job: Job) -> dict[str, Any]:
    """What both sides tell TRL."""
    return {
        "per_device_train_batch_size": job["micro"],
        "gradient_accumulation_steps": job["batch"] // job["micro"],
        "num_train_epochs": job["epochs"],
        "learning_rate": RATES[job["method"]],
        "logging_steps": 10,
        "save_strategy": "no",
    }


def device_arguments() -> dict[str, Any]:
    """What TRL must be told without a GPU, where bfloat16 is slow."""
    if torch.cuda.is_available():
        return {}
    return {
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }


def columns(rows: list[dict[str, Any]], method: str) -> dict[str, list[Any]]:
    """Pairs as the columns that the method's trainer reads."""
    if method == "sft":
        return {"prompt": [r["prompt"] for r in rows], "completion": [r["chosen"] for r in rows]}
    return {name: [row[name] for row in rows] for name in ("prompt", "chosen", "rejected")}


def trl_trainer(job: Job, rows: list[dict[str, Any]], model: Any, out: Path, **more: Any) -> Any:
    """TRL's trainer as its documentation makes it."""
    import trl
    from datasets import Dataset
    from transformers import AutoTokenizer

    name = job["method"].upper()
    config, trainer = getattr(trl, f"{name}Config"), getattr(trl, f"{name}Trainer")
    data = Dataset.from_dict(columns(rows, job["method"]))
    return trainer(
        model=model,
        args=config(
            output_dir=str(out), max_length=LENGTH, report_to="none", disable_tqdm=True, seed=0,
            **device_arguments(), **arguments(job), **more,
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
    )  # fmt: skip


def loaded_plainly(folder: str) -> Any:
    """A model as TRL's scripts load it."""
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16 if on_gpu else torch.float32
    )
    return model.to("cuda") if on_gpu else model


def train_trl(job: Job, rows: list[dict[str, Any]], out: Path) -> Path:
    """Train and save with TRL alone."""
    trainer = trl_trainer(job, rows, loaded_plainly(job["model"]), out)
    trainer.train()
    trainer.save_model(str(out / "model"))
    return out / "model"


def train_ours(job: Job, project: Project, speed: bool) -> Path:
    """Train and save as `handloom train` does, from a recipe and a build run."""
    from align.train import train

    options = dict.fromkeys(("padding_free", "share_prompts", "keep_reference"), speed)
    recipe = {
        "method": job["method"],
        "model": job["model"],
        "max_length": LENGTH,
        "trainer": {**arguments(job), "eval_strategy": "no"},
        "speed": options,
    }
    path = project.root / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return train(project, path, again=True).path / "model"


def project_with(rows: list[dict[str, Any]], out: Path) -> Project:
    """A project with a build run of these pairs; what an earlier one here has cached stays."""
    for name in ("runs", "guidelines"):
        (out / name).mkdir(parents=True, exist_ok=True)
    project = Project.find(out)
    ids = [
        {"row_id": f"r-{at}", "prompt_id": f"p-{at}", "pair_id": f"j-{at}", "split": "train"}
        for at in range(len(rows))
    ]
    preferred = [{**row, **named} for row, named in zip(rows, ids, strict=True)]
    written = [
        {**named, "prompt": row["prompt"], "completion": row["chosen"], "source": "demonstration"}
        for row, named in zip(rows, ids, strict=True)
    ]
    plan = project.again(RunPlan("build", 1, settings={"rows": len(rows)}))
    with project.draft(plan) as draft:
        draft.write("preference", table_from_rows("preference", preferred))
        draft.write("sft", table_from_rows("sft", written))
    return project


def held_out(job: Job) -> dict[str, float]:
    """The loss of a trained model on held-out pairs, by TRL's trainer whoever trained it."""
    model = loaded_plainly(job["trained"])
    # Where the reference is loaded from.
    model.config._name_or_path = job["model"]
    job = {**job, "micro": 8, "batch": 8}
    with tempfile.TemporaryDirectory() as out:
        trainer = trl_trainer(job, job["rows"], model, Path(out))
        figures = trainer.evaluate(trainer.train_dataset)
    wanted = ("eval_loss", "eval_rewards/accuracies")
    return {name.removeprefix("eval_"): figures[name] for name in wanted if name in figures}


def reset_peak() -> None:
    """Forget how much memory was in use before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        # Linux alone: 5 resets the peak of the resident set.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mb() -> float:
    """The most memory in use since `reset_peak`: the GPU's, else the process's own."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def matrix_peak() -> float:
    """Operations a second of this device's best matrix product of its training type."""
    on_gpu = torch.cuda.is_available()
    size, kind = (8192, torch.bfloat16) if on_gpu else (1536, torch.float32)
    a = torch.randn(size, size, dtype=kind, device="cuda" if on_gpu else "cpu")
    best = float("inf")
    for _ in range(12):
        start = time.perf_counter()
        torch.mm(a, a)
        if on_gpu:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def profiled(side: str, job: Job) -> dict[str, float]:
    """Where a training's processor time goes: the share of each operation above 2 %."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run(side, {**job, "kind": "train"})
    spent = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    whole = sum(spent.values())
    most = sorted(spent, key=lambda key: -spent[key])
    return {key: round(spent[key] / whole, 3) for key in most if spent[key] > whole / 50}


def run(side: str, job: Job) -> dict[str, Any]:
    """Do one job: train, measure what was trained, or measure the device."""
    if job["kind"] == "peak":
        return {"flops": matrix_peak()}
    if job["kind"] == "profile":
        return profiled(side, job)
    if job["kind"] == "held-out":
        return held_out(job)
    out = Path(job["out"])
    if not job.get("again"):
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    project = None if side == "trl" else project_with(job["rows"], out)
    reset_peak()
    start, worked = time.perf_counter(), time.process_time()
    if project is None:
        model = train_trl(job, job["rows"], out)
    else:
        model = train_ours(job, project, side == "on")
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - worked,
        "peak_mb": peak_mb(),
        "model": str(model),
    }


def main() -> None:
    """Answer jobs until there are none."""
    import datasets
    from transformers.utils import logging

    # In one process every run would find what the one before had computed.
    datasets.disable_caching()
    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ["TQDM_DISABLE"] = "1"
    answers = sys.stdout
    for line in sys.stdin:
        with redirect_stdout(sys.stderr):
            said = run(sys.argv[1], json.loads(line))
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
