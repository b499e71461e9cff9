"""`python -m annotate.embedded --home DIR --port N`: the server in the foreground."""

import sys
from pathlib import Path

import click

from annotate.embedded.leases import DEFAULT_MINUTES
from annotate.embedded.log_format import log_without_secrets
from annotate.embedded.serve import serve
from annotate.errors import HandloomError


@click.command()
@click.option("--home", type=click.Path(path_type=Path), required=True, help="The server's folder.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=6900, show_default=True, help="0 takes any free port.")
@click.option("--no-patches", is_flag=True, help="Argilla as slow as it came, to measure against.")
@click.option("--lease", default=DEFAULT_MINUTES, show_default=True, help="Minutes; 0: none.")
@click.option("--allow-custom-fields", is_flag=True, help="Let scripts in custom fields run.")
def main(
    home: Path, host: str, port: int, no_patches: bool, lease: float, allow_custom_fields: bool
) -> None:
    """Run the embedded Argilla until it is told to stop."""
    log_without_secrets()
    try:
        serve(
            home,
            host,
            port,
            patched=not no_patches,
            lease_minutes=lease,
            custom_fields=allow_custom_fields,
        )
    except HandloomError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
