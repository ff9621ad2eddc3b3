"""`hololine model evaluate`: one report on what models see and what they promise."""

import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from deploy.commands.common import read_settings, stage_bars

if TYPE_CHECKING:
    from connectors.line import Line
    from inference.extractors import Extractor
    from training.evaluation.parts import Dataset

Kind = typing.Literal["plant", "folder"]

PARTS_DEFAULT: Final = 1_000
_QUICK_PARTS: Final = 120
_QUICK_TEST: Final = 24


def evaluate(
    *,
    dataset: Annotated[
        Kind, typer.Option(help="Parts of the virtual plant, or of a folder.")
    ] = "plant",
    folder: Annotated[
        Path | None,
        typer.Option(help="With --dataset folder: <split>/<label>/<part>/<modality>.* below it."),
    ] = None,
    product: Annotated[
        list[str] | None, typer.Option(help="A product of the line; default: every one.")
    ] = None,
    parts: Annotated[
        int, typer.Option(min=100, max=100_000, help="Good parts of the plant to fit from.")
    ] = PARTS_DEFAULT,
    test: Annotated[
        int, typer.Option(min=20, max=100_000, help="Good test parts, and as many defective ones.")
    ] = PARTS_DEFAULT,
    seed: Annotated[int, typer.Option(help="Other parts and other random choices.")] = 0,
    reference: Annotated[
        Path | None,
        typer.Option(help="Weights of timm's resnet18: a plain memory to compare with."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where report.html and report.json go.")] = None,
    line: Annotated[Path | None, typer.Option("--line", help="The line file.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few parts, one product: does it run at all?")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report for a machine.")
    ] = False,
) -> None:
    """Fit models on good parts, try them on others, and write one report.

    It tells AUROC by sensors, kind and grade; hallucination against its controls; the promise on
    fresh parts; what it costs. Nothing of the line is touched. A run that was cut short goes on
    where it was.
    """
    from deploy.evaluation.command import Order, run_evaluation
    from deploy.evaluation.terminal import show

    settings = read_settings()
    fit, tried = (_QUICK_PARTS, _QUICK_TEST) if quick else (parts, test)
    given = _dataset(kind=dataset, folder=folder, line=line, parts=fit, test=tried, seed=seed)
    products = product or sorted(given.line.products)
    order = Order(
        products=products[:1] if quick else products,
        seed=seed,
        quick=quick,
        reference=_reference(reference),
        out=out or settings.data_folder / "evaluation",
    )
    with stage_bars() as progress:
        evaluation = run_evaluation(settings, given, order, progress=progress)
    if as_json:
        typer.echo(evaluation.to_json())
        return
    show(evaluation, order.out)


def _dataset(
    *,
    kind: Kind,
    folder: Path | None,
    line: Path | None,
    parts: int,
    test: int,
    seed: int,
) -> "Dataset":
    from deploy.importing import folder_line, survey
    from training.evaluation.parts import FolderDataset
    from training.evaluation.plant import PlantDataset

    if kind == "plant":
        return PlantDataset(_plant_line(line), fit=parts, test=test, seed=seed)
    if folder is None:
        raise typer.BadParameter("name the folder, such as --folder objects/capsule")
    found = survey(folder)
    good = found.parts.get("train/good", 0)
    the_line = folder_line(folder.name, found.modalities, good=good)
    return FolderDataset(folder, the_line)


def _plant_line(path: Path | None) -> "Line":
    from deploy.line_file import line_template, load_line, parse_line

    return parse_line(line_template()) if path is None else load_line(path)


def _reference(path: Path | None) -> "tuple[str, Extractor] | None":
    from inference.extractors import build_extractor, load_weights

    if path is None:
        return None
    return "ResNet-18", build_extractor("timm-resnet18", load_weights(path))
