"""Recipes of the methods that write completions as they learn, and are told how good they are."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import field_validator

from align.recipe.parts import Tuning
from align.recipe.words import Complaint


class FeedbackRecipe(Tuning):
    """Reinforcement learning from people's feedback: a reward model speaks for them.

    The prompts are those of a build run's `preference` table; those held out measure the reward.
    """

    held_out: ClassVar[str] = "eval_reward"
    higher_is_better: ClassVar[bool] = True

    reward: str | None = None
    """A reward model: a train run, a folder, or a model id of the hub. Left out: the newest."""
    held_out_reward: str | None = None
    """Another one, trained on other pairs: it is measured and not learnt from, so that a model that
    pleases `reward` alone is seen to (Gao et al. 2023)."""

    @field_validator("new_special_tokens", "chat_template")
    @classmethod
    def _known_to_the_reference(cls, named: Any) -> Any:
        if named:
            raise ValueError("the reference would not know them. Set them in an SFT recipe before")
        return named

    def complaint(self, key: str) -> Complaint | None:
        """What Handloom sets from the two rewards."""
        if key == "reward_weights":
            return ("reward_weights is set by Handloom", "Leave it out: see held_out_reward")
        return None


class RlooRecipe(FeedbackRecipe):
    """RLOO (Ahmadian et al. 2024): a completion against the others of its prompt."""

    method: Literal["rloo"]


class GrpoRecipe(FeedbackRecipe):
    """GRPO (Shao et al. 2024, DeepSeekMath): the same, in units of the group's spread."""

    method: Literal["grpo"]


class OnlineDpoRecipe(FeedbackRecipe):
    """Online DPO (Guo et al. 2024): DPO on two completions of the model as it is now, of which the
    reward model prefers one."""

    method: Literal["online-dpo"]
