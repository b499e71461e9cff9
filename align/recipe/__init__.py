"""One experiment's YAML, checked before anything starts.

    method: dpo
    model: null              # whatever this method starts from by default
    trainer: {beta: 0.1, learning_rate: 5.0e-4}

`trainer` goes straight to the trainer's own configuration (TRL's, but for pre-training), under its
own names. A wrong key is refused with its line and the nearest right one.

- parts: what several methods have in common
- text, preference, feedback: the form of each method's recipe
- reading: from a file to a form, with the line of what is wrong
"""

from align.recipe.feedback import FeedbackRecipe, GrpoRecipe, OnlineDpoRecipe, RlooRecipe
from align.recipe.parts import (
    TURNS,
    Architecture,
    Demonstrations,
    Hardware,
    Lora,
    ModelShapes,
    Prefix,
    Recipe,
    SetShapes,
    Shapes,
    Tuning,
)
from align.recipe.preference import (
    DPO_LOSSES,
    FROM_DATA,
    CpoRecipe,
    DpoRecipe,
    KtoRecipe,
    OrpoRecipe,
    RewardRecipe,
)
from align.recipe.reading import (
    FORMS,
    SHIPPED,
    check_trainer_arguments,
    find_recipe,
    line_of,
    load_recipe,
)
from align.recipe.text import PretrainRecipe, SftRecipe
from align.recipe.words import nearest

__all__ = [
    "DPO_LOSSES",
    "FORMS",
    "FROM_DATA",
    "SHIPPED",
    "TURNS",
    "Architecture",
    "CpoRecipe",
    "Demonstrations",
    "DpoRecipe",
    "FeedbackRecipe",
    "GrpoRecipe",
    "Hardware",
    "KtoRecipe",
    "Lora",
    "ModelShapes",
    "OnlineDpoRecipe",
    "OrpoRecipe",
    "Prefix",
    "PretrainRecipe",
    "Recipe",
    "RewardRecipe",
    "RlooRecipe",
    "SetShapes",
    "SftRecipe",
    "Shapes",
    "Tuning",
    "check_trainer_arguments",
    "find_recipe",
    "line_of",
    "load_recipe",
    "nearest",
]
