"""`python -m align`: the `handloom` command, for processes that start one another."""

from align.cli import main

if __name__ == "__main__":
    main()
