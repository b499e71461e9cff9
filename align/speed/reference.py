"""A reference model's log-probabilities, computed once and kept for every later run.

DPO asks how probable the reference finds each completion. That depends on the pairs and the
reference alone, not on a recipe's learning rate or loss, so it is kept in the project's cache
(`.handloom/cache/reference`), one Parquet file a set and reference:

    ref_chosen_logps, ref_rejected_logps     natural logs, one row a pair, in the set's order

A file's name is the sha256 of all that the figures depend on. One that cannot be read, or does not
fit the set, is computed anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset, concatenate_datasets

from annotate.errors import ResourceError
from annotate.runs import Project

CACHE = Path("cache") / "reference"
"""In the project's `.handloom`."""
COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
"""The names by which TRL's loss reads them."""
_TOKENS = ("prompt_ids", "chosen_ids", "rejected_ids")
# Of the trainer's configuration: what changes the figures.
_ARGUMENTS = ("max_length", "truncation_mode", "ld_alpha", "bf16", "fp16")


def keeping_references(trainer_class: Any, project: Project) -> Any:
    """TRL's DPO trainer, or a kind of it, that takes them from the project's cache.

    One method is overridden: the one that computes them beforehand (with
    `precompute_ref_log_probs`). Where a model's weights are spread over processes, nothing is kept,
    since no process sees what they are.
    """
    folder = project.state_dir / CACHE

    class KeepingReferences(trainer_class):  # type: ignore[misc]
        def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
            if self.is_deepspeed_enabled or self.is_fsdp_enabled:
                return super()._precompute_ref_logps(dataset, name, batch_size)
            path = folder / f"{_key(self, dataset)}.parquet"
            # Several processes must agree on whether to compute: the first one's word counts.
            found = [read_kept(path, len(dataset))]
            broadcast_object_list(found)
            if found[0] is not None:
                return concatenate_datasets([dataset, Dataset(found[0])], axis=1)
            computed = super()._precompute_ref_logps(dataset, name, batch_size)
            if self.accelerator.is_main_process:
                keep(path, computed.with_format("arrow").select_columns(list(COLUMNS))[:])
            return computed

    return KeepingReferences


def read_kept(path: Path, rows: int) -> pa.Table | None:
    """The kept columns; None where there are none, or none that can be used."""
    try:
        table = pq.read_table(path, columns=list(COLUMNS))
    except (OSError, pa.ArrowException):
        return None
    values = [table[name].to_numpy() for name in COLUMNS]
    whole = all(column.dtype.kind == "f" and np.isfinite(column).all() for column in values)
    return table if whole and table.num_rows == rows else None


def keep(path: Path, table: pa.Table) -> None:
    """Write the columns, whole or not at all.

    Raises:
        ResourceError: they cannot be written.
    """
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, temporary)
        temporary.replace(path)
    except OSError as error:
        raise ResourceError(
            f"the reference's log-probabilities cannot be kept: {error}",
            where=str(path.parent),
            remedy="Free some space, or set speed: {keep_reference: false}",
        ) from None


def _key(trainer: Any, dataset: Dataset) -> str:
    """All that the log-probabilities depend on, as one sha256."""
    digest = hashlib.sha256()
    settings = {name: getattr(trainer.args, name) for name in _ARGUMENTS}
    config = trainer.model.config.to_dict()
    # Where a model lies does not change what it says.
    config.pop("_name_or_path", None)
    digest.update(json.dumps([settings, config], sort_keys=True, default=str).encode())
    columns = dataset.with_format("arrow").select_columns(list(_TOKENS))[:]
    for name in _TOKENS:
        column = columns[name].combine_chunks()
        for values in (column.value_lengths(), column.flatten()):
            digest.update(np.asarray(values, dtype=np.int64).tobytes())
    for name, tensor in sorted(_reference(trainer.model).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _reference(model: Any) -> dict[str, torch.Tensor]:
    """The weights that the reference has: all of them, or those below the adapters."""
    trained = hasattr(model, "peft_config")
    return {
        name: weight
        for name, weight in model.state_dict(keep_vars=True).items()
        if not (trained and weight.requires_grad)
    }
