"""The command line: every command loads its parts when it is called, so that --help is quick."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from svd.commands import (
    checkpoint,
    convert,
    curate,
    demo,
    doctor,
    evaluate,
    lineage,
    protocol,
    recipe,
    registry,
    report,
    runs,
    sample,
    services,
    store,
    takedown,
    train,
    vote,
    weights,
)
from svd.commands.stage import HOMES, add_stage_commands
from svd.errors import SvdError


class InOrderOfStages(TyperGroup):
    """Lists the stages in the order they run; Typer would put those with subcommands first."""

    def list_commands(self, ctx: Any) -> list[str]:  # Typer carries a click of its own
        """Return the names of commands: stages, then the others as they were added."""
        others = [name for name in super().list_commands(ctx) if name not in HOMES]
        return [*HOMES, *others]


app = typer.Typer(
    name="svd",
    cls=InOrderOfStages,
    help="From raw video to a promoted Stable Video Diffusion model.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def main_options(
    root: Annotated[
        Path | None, typer.Option(help="Project folder (default: the current one or above).")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log details.")] = False,
) -> None:
    """Set up what every command shares."""
    from svd.runtime.log import set_up_logging

    set_up_logging(verbose=verbose)
    if root is not None:
        os.chdir(root)


add_stage_commands(app)
for group in (
    train,
    evaluate,
    convert,
    sample,
    curate,
    recipe,
    registry,
    lineage,
    takedown,
    runs,
    checkpoint,
    report,
    store,
    weights,
    protocol,
    vote,
    services,
    demo,
    doctor,
):
    group.add_commands(app)


def main() -> None:
    """Run the command line; an expected error ends in one sentence and exit code 1."""
    try:
        app()
    except SvdError as err:
        typer.secho(f"svd: [{type(err).__name__}] {err}", fg="red", err=True)
        logging.getLogger("svd").debug("traceback", exc_info=err)
        sys.exit(1)


if __name__ == "__main__":
    main()
