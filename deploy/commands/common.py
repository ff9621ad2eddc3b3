"""What the commands share: settings read once, and where this process's own log goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from deploy.settings import Settings

LINE_DEFAULT: Final = Path("line.yaml")


def read_settings() -> "Settings":
    """The settings of the environment; warnings of this process go to stderr, as JSON."""
    from deploy.logs import configure_logs
    from deploy.settings import Settings

    settings = Settings.read()
    configure_logs("debug" if settings.log_level == "debug" else "warning", process="hololine")
    return settings


def read_settings_quietly() -> "Settings":
    """The settings; this process owns the terminal, so its log goes beside its children's."""
    from deploy.logs import configure_logs
    from deploy.settings import Settings

    settings = Settings.read()
    folder = settings.data_folder / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    configure_logs(settings.log_level, process="hololine", path=folder / "hololine.log")
    return settings


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """``rgb=point-mae`` and the like, by the name before the sign.

    Raises:
        typer.BadParameter: One of them is no such pair.
    """
    found = {}
    for each in given or ():
        name, sign, value = each.partition("=")
        if not (name and sign and value):
            import typer

            raise typer.BadParameter(f"{option} {each}: give MODALITY=VALUE, such as rgb=random")
        found[name] = value
    return found


@contextmanager
def stage_bars() -> "Iterator[Callable[[str, str, float], None]]":
    """Progress bars on stderr: one for each product and stage."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(product: str, stage: str, share: float) -> None:
            name = f"{product}: {stage}"
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=1.0)
            bars.update(tasks[name], completed=share)

        yield advance
