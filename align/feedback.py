"""Reinforcement learning from feedback: prompts, rewards, and how good the model is held out.

The policy is trained on the reward model's scores less β times its distance to the model it started
from (Ouyang et al. 2022, equation 2, without the pre-training term). What is measured on held-out
prompts is the reward itself: of one completion each, drawn with the same numbers at every
evaluation, so that two evaluations differ by the model and not by the draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from align.conversations import Messages, conversation_tokens
from align.model import Loaded, stop_tokens
from align.model_ref import ModelRef, judges, resolve_model
from align.recipe.feedback import FeedbackRecipe
from align.reward_scores import load_reward_model, reward_scores
from align.sampling import Sampling, draws, sample_batch
from align.training import fit
from align.tuning import make_trainer, prepare
from annotate.errors import ProjectError
from annotate.runs import Draft, Project

REWARD, HELD_OUT = "reward", "held_out"
# Prompts completed together while evaluating.
_TOGETHER = 64


@dataclass(frozen=True)
class Feedback:
    """What the trainer of a method is, and what its configuration calls things."""

    trainer: Any
    config: Any
    completion: str
    """The argument for the tokens of a completion at most."""
    group: str | None = None
    """The argument for how many completions of a prompt an evaluation draws."""


def train_with_feedback(
    what: Feedback, recipe: FeedbackRecipe, loaded: Loaded, rows: pa.Table, draft: Draft
) -> None:
    """Train on the prompts of the `preference` table `rows`; those of split "eval" are held out.

    `eval_reward` in the metrics is the mean reward of one completion of each held-out prompt, and
    `eval_reward_error` its standard error over prompts.

    Raises:
        InputError: no prompt leaves room for a completion.
        TrainingError: TRL or PEFT refuses the recipe's settings, or a reward model cannot be used.
    """
    room = int(recipe.trainer.get(what.completion, recipe.max_length // 2))
    rewards = load_rewards(recipe, draft)
    prepared = prepare(recipe, loaded, prompt_rows(rows), draft, (), room=room, unit="prompts")
    arguments: dict[str, Any] = {
        what.completion: room,
        "reward_weights": [float(one.__name__ == REWARD) for one in rewards],
    }
    if what.group is not None:
        arguments[what.group] = 1
    scored = type(what.trainer.__name__, (HeldOutReward, what.trainer), {})
    trainer = make_trainer(
        scored,
        what.config,
        recipe,
        loaded,
        prepared,
        draft,
        parts={"reward_funcs": list(rewards)},
        **arguments,
    )
    trainer.measured_by, trainer.reads_with = rewards, loaded
    trainer.held_out_sampling = Sampling(
        temperature=recipe.trainer.get("temperature", 1.0), max_new_tokens=room, seed=recipe.seed
    )
    fit(trainer, recipe, draft)


def with_reward(project: Project, recipe: FeedbackRecipe) -> FeedbackRecipe:
    """The recipe with the newest reward model, merged ones too, where it names none.

    Raises:
        ProjectError: there is none yet.
    """
    if recipe.reward is not None:
        return recipe
    scoring = [run.id for run in project.all_runs() if judges(run)]
    if not scoring:
        raise ProjectError(
            "there is no reward model yet", remedy="`handloom train reward-support-desk`"
        )
    return recipe.model_copy(update={"reward": scoring[-1]})


def reward_refs(project: Project, recipe: FeedbackRecipe) -> dict[str, ModelRef]:
    """The reward models of a recipe by what their figures are called: the one that is learnt from,
    then the one that is only measured."""
    named = {REWARD: recipe.reward, HELD_OUT: recipe.held_out_reward}
    return {name: resolve_model(project, model) for name, model in named.items() if model}


def prompt_rows(pairs: pa.Table) -> pa.Table:
    """The prompts of a `preference` table, each once, with its side."""
    first = pc.index_in(pc.unique(pairs["prompt_id"]), value_set=pairs["prompt_id"])
    return pairs.select(["prompt", "split"]).take(first)


class Reward:
    """A reward model as TRL calls one: conversations in, a number for each out."""

    def __init__(self, name: str, loaded: Loaded) -> None:
        self.__name__ = name
        self.loaded = loaded

    def __call__(
        self, prompts: Sequence[Messages], completions: Sequence[Messages], **_: Any
    ) -> list[float]:
        """The reward of each completion of each prompt."""
        said = [[*asked, *told] for asked, told in zip(prompts, completions, strict=True)]
        found: list[float] = reward_scores(self.loaded, said).tolist()
        return found


def load_rewards(recipe: FeedbackRecipe, draft: Draft) -> list[Reward]:
    """The recipe's reward models, where the model is trained.

    Raises:
        TrainingError: one cannot be loaded, or is no reward model.
    """
    from accelerate import PartialState

    trusted = bool(recipe.trainer.get("trust_remote_code"))
    rewards = []
    for name, ref in reward_refs(draft.project, recipe).items():
        loaded = load_reward_model(ref, trust_remote_code=trusted)
        loaded.model.to(PartialState().device)
        rewards.append(Reward(name, loaded))
        draft.note(**{f"{name}_model": ref.name})
    return rewards


class HeldOutReward:
    """Before a TRL trainer among the bases: evaluates by the rewards of held-out prompts.

    TRL's own evaluation draws anew each time, and that of its online DPO fails.
    """

    measured_by: Sequence[Reward]
    reads_with: Loaded
    held_out_sampling: Sampling

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Log and return the mean reward, its standard error and the completions' mean length."""
        trainer: Any = self
        prompts = trainer.eval_dataset["prompt"]
        told, lengths = self._completions(list(prompts))
        metrics: dict[str, float] = {}
        for reward in self.measured_by:
            found = np.array(reward(prompts, told))
            learnt = reward.__name__ == REWARD
            name = REWARD if learnt else f"rewards/{reward.__name__}/mean"
            metrics[f"{metric_key_prefix}_{name}"] = float(found.mean())
            if len(found) > 1:
                error = float(found.std(ddof=1)) / math.sqrt(len(found))
                metrics[f"{metric_key_prefix}_{name}_error"] = error
        metrics[f"{metric_key_prefix}_completions/mean_length"] = float(np.mean(lengths))
        trainer.log(metrics)
        trainer.control = trainer.callback_handler.on_evaluate(
            trainer.args, trainer.state, trainer.control, metrics
        )
        return metrics

    def _completions(self, prompts: Sequence[Messages]) -> tuple[list[Messages], list[int]]:
        """One completion of each prompt by the model as it is now, and their tokens."""
        from trl.models.utils import unwrap_model_for_generation

        trainer: Any = self
        read, rules = self.reads_with, self.held_out_sampling
        tokens = conversation_tokens(read, prompts, asks=True)
        stop = stop_tokens(read)
        told: list[Messages] = []
        lengths: list[int] = []
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
            model.eval()
            for start in range(0, len(tokens), _TOGETHER):
                some = tokens[start : start + _TOGETHER]
                uniform = np.stack(
                    [draws(rules.seed, str(row), 0, rules.max_new_tokens) for row in some]
                )
                made = sample_batch(model, some, uniform, rules, stop)
                texts = read.tokenizer.batch_decode(
                    [one.tokens for one in made], skip_special_tokens=True
                )
                told += [[{"role": "assistant", "content": text}] for text in texts]
                lengths += [len(one.tokens) for one in made]
            model.train()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return told, lengths
