"""The guidelines that come with Handloom; `handloom init` copies them into a project."""
