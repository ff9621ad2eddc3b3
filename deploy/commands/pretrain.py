"""`hololine model pretrain`: make the built-in network from procedural images."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from training.pretrain import Told

_QUICK_STEPS: Final = 60
_QUICK_CLASSES: Final = 64


def pretrain(
    *,
    out: Annotated[Path, typer.Option(help="Where the weights go: a .safetensors file.")],
    seed: Annotated[int, typer.Option(min=0, help="Decides classes, crops and first weights.")] = 0,
    images: Annotated[
        int | None, typer.Option(min=1_000, help="How many images are seen; default: the recipe's.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of the processor.")] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute instead of an hour, to see that it runs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for a machine.")] = False,
) -> None:
    """Pretrain the built-in network on procedural images; no picture is downloaded.

    Interrupted, the same command goes on where it was: its state is kept beside OUT until the end.
    """
    import torch
    from safetensors.torch import save

    from training.pretrain import Recipe, pretrain

    torch.set_num_threads(threads)
    recipe = Recipe.of(seed=seed, images=images)
    if quick:
        recipe = Recipe(seed=seed, classes=_QUICK_CLASSES, steps=_QUICK_STEPS)
    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = out.with_suffix(".checkpoint")
    with _bar() as tell:
        weights = pretrain(
            recipe,
            checkpoint=checkpoint,
            progress=tell,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
    assert weights is not None, "nothing asked it to stop early"
    data = save(weights)
    out.write_bytes(data)
    checkpoint.unlink()
    digest = hashlib.sha256(data).hexdigest()
    if as_json:
        typer.echo(json.dumps({"out": str(out), "sha256": digest, "images": recipe.images}))
        return
    typer.echo(f"{out} has the weights after {recipe.images:,} images, sha256 {digest}")


@contextmanager
def _bar() -> "Iterator[Callable[[Told], None]]":
    """A progress bar on stderr, with what the network has learnt so far."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("rendering classes", total=None)

        def tell(told: "Told") -> None:
            words = f"loss {told.loss:.2f}, right {told.accuracy:.1%}"
            rate = f"{told.images_per_second:.0f} images/s"
            bars.update(task, completed=told.step, total=told.steps, description=f"{words}, {rate}")

        yield tell
