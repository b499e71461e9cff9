"""What a recipe asks of the conduct of a training: the batch, when to stop, which model to keep."""

from __future__ import annotations

from typing import Any

from align.recipe import Recipe
from annotate.errors import InputError

# Rows a device computes together where nobody says how many: more only costs memory on a CPU, and
# a GPU that lacks room for them is given half as many until they fit (align.training.fit).
_TOGETHER = 32


def conduct_arguments(recipe: Recipe, *, evaluates: bool, processes: int) -> dict[str, Any]:
    """Arguments of a trainer's configuration that follow from the recipe's own keys.

    Args:
        evaluates: whether rows are held out.
        processes: how many train together.

    Raises:
        InputError: `batch_size` cannot be shared out.
    """
    best = _best_arguments(recipe) if evaluates and _wants_best(recipe) else {}
    return batch_arguments(recipe, processes) | best


def require_held_out(recipe: Recipe, evaluates: bool) -> None:
    """Refuse to look for the best model, or to stop early, where nothing is held out.

    Raises:
        InputError: naming the key.
    """
    wanted = _wants_best(recipe)
    if wanted and not (evaluates and recipe.trainer.get("eval_strategy") != "no"):
        raise InputError(
            f"{wanted} needs rows that are held out and evaluated, and there are none",
            where=recipe.method,
            remedy="Build with held_out above 0, or leave it out",
        )


def _wants_best(recipe: Recipe) -> str | None:
    """The key by which a recipe asks for the best model."""
    if recipe.early_stopping is not None:
        return "early_stopping"
    return "load_best_model_at_end" if recipe.trainer.get("load_best_model_at_end") else None


def batch_arguments(recipe: Recipe, processes: int) -> dict[str, int]:
    """Rows a device at a time, and how many of such batches make one optimizer step.

    Raises:
        InputError: the wanted batch does not divide, with the nearest that does.
    """
    if recipe.batch_size is None:
        return {}
    if "gradient_accumulation_steps" in recipe.trainer:
        raise InputError(
            "batch_size finds trainer.gradient_accumulation_steps itself",
            where="batch_size",
            remedy="Leave one of them out",
        )
    given = recipe.trainer.get("per_device_train_batch_size")
    unit = processes * (int(given) if given else 1)
    if recipe.batch_size % unit:
        raise InputError(
            f"{recipe.batch_size} rows are no multiple of {unit}, which is what "
            f"{processes} process(es) take at a time",
            where="batch_size",
            remedy=f"The nearest that is: {_nearest_multiple(recipe.batch_size, unit)}",
        )
    share = recipe.batch_size // processes
    together = int(given) if given else largest_divisor(share, _TOGETHER)
    return {
        "per_device_train_batch_size": together,
        "gradient_accumulation_steps": share // together,
    }


def largest_divisor(number: int, at_most: int) -> int:
    """The largest number up to `at_most` that divides `number`; 1 divides all."""
    return next(each for each in range(min(number, at_most), 0, -1) if number % each == 0)


def _nearest_multiple(number: int, unit: int) -> int:
    """The multiple of `unit`, above 0, that is nearest to `number`; the larger one of two."""
    return max(unit, (number + unit // 2) // unit * unit)


def _best_arguments(recipe: Recipe) -> dict[str, Any]:
    """What keeps the best model by the held-out figure."""
    arguments: dict[str, Any] = {
        "load_best_model_at_end": True,
        # The best and the newest stay; one more, so that while a third is written both do.
        "save_strategy": "best",
        "save_total_limit": 3,
        # How long nothing has improved outlives an interruption.
        "restore_callback_states_from_checkpoint": True,
    }
    if "metric_for_best_model" not in recipe.trainer:
        arguments["metric_for_best_model"] = recipe.held_out
        arguments["greater_is_better"] = recipe.higher_is_better
    return arguments
