"""The command ``fedrobust data get``."""

from typing import Annotated

import typer

from fedrobust.cli import completion
from fedrobust.cli.app import app, say, user_errors

data = typer.Typer(help="Get and check data sets.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.command("get")
def data_get(
    name: Annotated[
        str,
        typer.Argument(
            help="A data set; `fedrobust list data` names them.",
            autocompletion=completion.component("data"),
        ),
    ],
) -> None:
    """Find or download a data set, check it, and say where it is."""
    from fedrobust.data import get

    with user_errors():
        get(name, say)
