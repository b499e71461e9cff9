"""A search over the fields of a recipe: `handloom sweep`.

- space: which fields, and what may stand there
- trials: one training of the sweep, and when it is stopped early
- step: all of them, resumably, and what mattered
- text: the result for people
"""
