"""Recipes shipped with the package; `handloom init` copies them into a project."""
