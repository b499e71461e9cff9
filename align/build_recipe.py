"""What of the judgements is trained on: a build recipe's YAML, checked before anything starts.

filters:
  - {rule: posterior, at_least: 0.85}
held_out: 0.1
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from align.filters import RULES, Filter
from align.recipe import find_recipe, line_of, nearest
from annotate.errors import InputError
from annotate.runs import Project

DEFAULT_RECIPE = "build-preference"


class BuildRecipe(BaseModel):
    """What of the judgements is trained on. Part of the run's id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filters: tuple[Filter, ...]
    """In order; the first that drops a pair is the reason that counts."""

    held_out: float = Field(0.1, ge=0, lt=1)
    """Share of prompts whose pairs are kept but never trained on: they measure reward accuracy."""

    winner_margin: float = Field(0.5, ge=0, le=1)
    """From which margin a kept pair's winner is clear enough to be imitated (SFT)."""

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Files from outside that the filters read."""
        return tuple(path for rule in self.filters for path in rule.inputs)


def read_recipe(project: Project, name: str | None = None) -> BuildRecipe:
    """The recipe in a file, or the one of this name in the project, else the shipped one.

    Raises:
        InputError: there is none, or a key of it is wrong; says which and what would be valid.
    """
    path = find_recipe(name or DEFAULT_RECIPE, (project.root / "recipes",))
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"not YAML ({' '.join(str(error).split())})", where=str(path)) from None
    if not isinstance(content, dict):
        raise InputError("a recipe is a mapping", where=str(path), remedy="See align/recipes")
    try:
        recipe = BuildRecipe.model_validate(content)
    except ValidationError as error:
        raise _complaint(error, path, text) from None
    return recipe.model_copy(
        update={"filters": tuple(rule.bound(project) for rule in recipe.filters)}
    )


def _complaint(error: ValidationError, path: Path, text: str) -> InputError:
    """The first of pydantic's complaints, an unknown key before all others, as one of ours."""
    complaints = error.errors(include_url=False)
    first = min(complaints, key=lambda complaint: complaint["type"] != "extra_forbidden")
    kind, loc = first["type"], first["loc"]
    # After a filter's number pydantic puts the rule's name, which is no key of the file.
    keys = (*loc[:2], *loc[3:]) if loc[0] == "filters" else loc
    name = ".".join(str(key) for key in keys)
    what, remedy = f"{name}: {first['msg']}", ""
    if kind == "union_tag_invalid":
        keys = (*keys, "rule")
        rule = str(first["ctx"]["tag"])
        what, remedy = f"unknown rule {rule!r}", nearest(rule, list(RULES), "Rules")
    elif kind == "union_tag_not_found":
        what, remedy = f'{name} needs a "rule"', f"Rules: {', '.join(RULES)}"
    elif kind == "extra_forbidden":
        beside = RULES[str(loc[2])] if len(loc) > 2 else BuildRecipe
        what = f"unknown key {name!r}"
        remedy = nearest(str(keys[-1]), sorted(beside.model_fields), "Keys")
    line = line_of(yaml.compose(text, Loader=yaml.SafeLoader), keys)
    return InputError(what, where=f"{path}:{line}", remedy=remedy)
