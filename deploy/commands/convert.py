"""`hololine model convert`: published weights become a file that a bundle can keep."""

import json
from pathlib import Path
from typing import Annotated

import typer

from inference.weights_names import Network


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN.pth", help="What the authors published.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="Where it goes.")],
    *,
    network: Annotated[
        Network | None, typer.Option(help="Whose weights are wanted; default: what IN holds.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for a machine.")] = False,
) -> None:
    """Convert a checkpoint of torch to safetensors, once, without running code in it.

    Decoders, heads and optimiser states are left out; names stay those of the authors.
    """
    from inference.weights_file import read_checkpoint

    checkpoint = read_checkpoint(source, network)
    digest = checkpoint.save(out)
    kept = checkpoint.kept.values()
    told = {
        "out": str(out),
        "network": checkpoint.network.value,
        "tensors": len(kept),
        "parameters": sum(tensor.numel() for tensor in kept),
        "shapes": len({tensor.shape for tensor in kept}),
        "dropped": list(checkpoint.dropped),
        "sha256": digest,
    }
    if as_json:
        typer.echo(json.dumps(told))
        return
    typer.echo(
        f"{out} has {told['network']}: {told['tensors']} tensors of {told['shapes']} shapes, "
        f"{told['parameters']:,} numbers\n"
        f"left out: {', '.join(checkpoint.dropped) or 'nothing'}\n"
        f"sha256 {digest}"
    )
