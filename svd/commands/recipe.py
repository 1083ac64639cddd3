"""`svd recipe`: look at recipes, compare them, choose the one in force."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="A recipe's name, or `params` for the one in force.")]


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    root.add_typer(
        app, name="recipe", help="Show, compare and choose recipes.", rich_help_panel="Recipes"
    )


@app.command("list")
def list_recipes() -> None:
    """List the recipes of this checkout."""
    from svd.config.recipe import recipe_names
    from svd.runtime.workspace import Workspace

    for name in recipe_names(Workspace.find().root):
        typer.echo(name)


@app.command()
def show(name: Name = "params") -> None:
    """Print a recipe after validating it."""
    from svd.config.load import load_params
    from svd.config.recipe import recipe_path
    from svd.runtime.workspace import Workspace

    path = recipe_path(Workspace.find().root, name)
    load_params(path)
    typer.echo(path.read_text(encoding="utf-8"), nl=False)


@app.command()
def use(name: Name) -> None:
    """Make a recipe the one in force: copy it to params.yaml."""
    from svd.config.recipe import use_recipe
    from svd.runtime.workspace import Workspace

    use_recipe(Workspace.find().root, name)
    typer.echo(f"params.yaml is now the recipe {name}; `dvc repro` runs what it changes")


@app.command()
def derive(
    names: Annotated[
        list[str], typer.Argument(help="all, none, or keys of the section `derive` of params.yaml.")
    ],
) -> None:
    """Plan what params.yaml derives from the main chain's models: finetunes, adapters."""
    from svd.config.derive import DERIVABLE
    from svd.config.recipe import plan_derived
    from svd.runtime.workspace import Workspace

    planned = {"all": DERIVABLE, "none": ()}.get(names[0], names) if len(names) == 1 else names
    plan_derived(Workspace.find().root, planned)
    typer.echo(f"params.yaml now derives: {', '.join(planned) or 'nothing'}")


@app.command()
def diff(left: Name, right: Name = "params") -> None:
    """Print every key on which two recipes differ."""
    from rich.console import Console
    from rich.table import Table

    from svd.config.recipe import diff_recipes
    from svd.runtime.workspace import Workspace

    rows = diff_recipes(Workspace.find().root, left, right)
    if not rows:
        typer.echo(f"{left} and {right} are equal")
        return
    table = Table("key", left, right)
    for key, left_value, right_value in rows:
        table.add_row(key, f"{left_value}", f"{right_value}")
    Console().print(table)
