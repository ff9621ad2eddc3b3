"""`hololine`: one command line for the whole line.

Only what a command needs is imported, so that help is quick.
"""

import sys
from typing import Final

import typer

from connectors.errors import HololineError, Poison
from deploy.commands import bench, data, dlq, line, model, part, prove, run, setup, verdicts

EXIT_POISON: Final = 2
EXIT_FAILED: Final = 1

app = typer.Typer(
    name="hololine",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "From partial inspections to whole-part verdicts on a factory line.\n\n"
        "Stations publish what they captured of each part; Hololine joins it, hallucinates what "
        "is missing, and tells the MES and the PLC one verdict per part and revision.\n\n"
        "New here?  `hololine demo` shows a whole virtual line on this "
        "machine.  `hololine init` begins a line of your own."
    ),
    epilog="A command's own help has an example: `hololine verdicts --help`",
)

setup.register(app)
run.register(app)
verdicts.register(app)
prove.register(app)
app.add_typer(line.app, name="line")
app.add_typer(part.app, name="part")
app.add_typer(model.app, name="model")
app.add_typer(data.app, name="data")
app.add_typer(dlq.app, name="dlq")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run one command; an error that was raised on purpose is told in one line.

    Exits with 2 when the input can never succeed, with 1 when trying again may help.
    """
    try:
        from deploy.names import check_names

        check_names()
        app()
    except Poison as error:
        _tell(f"{error.field}: {error.reason}")
        sys.exit(EXIT_POISON)
    except HololineError as error:
        _tell(str(error))
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(130)


def _tell(text: str) -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(text, markup=False)
