"""`hololine model evaluate`: one report on what models see and what they promise."""

import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from deploy.commands.common import pairs, read_settings, stage_bars

if TYPE_CHECKING:
    from connectors.line import Line
    from deploy.evaluation.tables_command import TablesOrder
    from deploy.settings import Settings
    from inference.extractors import Extractor
    from training.evaluation.parts import Dataset

Kind = typing.Literal["plant", "folder", "mvtec3d", "eyecandies"]
Profile = typing.Literal["lite", "paper"]
Protocol = typing.Literal["ours", "paper"]

PARTS_DEFAULT: Final = 1_000
_QUICK_PARTS: Final = 120
_QUICK_TEST: Final = 24

_DATASET: Final = typer.Option(help="Parts of the virtual plant, of a folder, or published ones.")
_ROOT: Final = typer.Option(
    help="Where the parts are; of a folder: <split>/<label>/<part>/<modality>.* below it."
)
_PROFILE: Final = typer.Option(
    help="lite: the bundle that a line would fit. paper: CMDIAD and the tables of its paper."
)
_PROTOCOL: Final = typer.Option(
    help="With --profile paper: the authors' constants and metrics at 224 px, or everything from "
    "the validation split, at the sensor's resolution."
)
_PRODUCT: Final = typer.Option(help="A product of the line, or a class; default: every one.")
_PARTS: Final = typer.Option(min=100, max=100_000, help="Good parts of the plant to fit from.")
_TEST: Final = typer.Option(
    min=20, max=100_000, help="Good test parts of the plant, and as many defective ones."
)
_SEED: Final = typer.Option(help="Other parts and other random choices; of several the first.")
_SEEDS: Final = typer.Option(min=1, max=100, help="With --profile paper: how many seeds.")
_EPOCHS: Final = typer.Option(min=1, max=10_000, help="With --profile paper: of each head.")
_SHARE: Final = typer.Option(
    "--bank-share", min=1e-4, max=1.0, help="With --profile paper: of all patches, in a bank."
)
_EYE: Final = typer.Option(
    help="With --profile paper: MODALITY=NETWORK, such as rgb=vit_base_patch8_224.dino (default "
    "of images), xyz=point-mae (of clouds), rgb=procedural, xyz=surface."
)
_WEIGHTS: Final = typer.Option(
    help="With --profile paper: MODALITY=FILE.safetensors, =hub (timm downloads them) or =random "
    "(does it run at all?)."
)
_DEVICE: Final = typer.Option(help="With --profile paper: cpu or cuda; default: cuda if there.")
_QUICK: Final = typer.Option("--quick", help="A few parts, one product: does it run at all?")
_JSON: Final = typer.Option("--json", help="Print the report for a machine.")
_REFERENCE: Final = typer.Option(
    help="Weights of timm's resnet18: a plain memory of 4,000 patches of every good training "
    "part, largest distance, to compare with."
)


def evaluate(
    *,
    dataset: Annotated[Kind, _DATASET] = "plant",
    root: Annotated[Path | None, _ROOT] = None,
    profile: Annotated[Profile, _PROFILE] = "lite",
    protocol: Annotated[Protocol, _PROTOCOL] = "ours",
    product: Annotated[list[str] | None, _PRODUCT] = None,
    parts: Annotated[int, _PARTS] = PARTS_DEFAULT,
    test: Annotated[int, _TEST] = PARTS_DEFAULT,
    seed: Annotated[int, _SEED] = 0,
    seeds: Annotated[int, _SEEDS] = 5,
    epochs: Annotated[int, _EPOCHS] = 100,
    bank_share: Annotated[float, _SHARE] = 0.1,
    eye: Annotated[list[str] | None, _EYE] = None,
    weights: Annotated[list[str] | None, _WEIGHTS] = None,
    device: Annotated[str | None, _DEVICE] = None,
    reference: Annotated[Path | None, _REFERENCE] = None,
    out: Annotated[Path | None, typer.Option(help="Where the page and its JSON go.")] = None,
    line: Annotated[Path | None, typer.Option("--line", help="The line file.")] = None,
    quick: Annotated[bool, _QUICK] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Fit models on good parts, try them on others, and write one report.

    lite: accuracy by sensors, kind and grade; hallucination against its controls; the promise on
    fresh parts. paper: the tables of the paper, why main modalities differ, the cost of stages.
    Nothing of the line is touched. A run that was cut short goes on where it was.
    """
    settings = read_settings()
    folder = out or settings.data_folder / "evaluation"
    if profile == "paper":
        from deploy.evaluation.tables_command import TablesOrder

        order = TablesOrder(
            dataset=dataset,
            root=_needed(root, dataset),
            protocol=protocol,
            categories=tuple(product or ()),
            seeds=tuple(range(seed, seed + seeds)),
            epochs=epochs,
            share=bank_share,
            eyes=pairs(eye, "--eye"),
            weights=pairs(weights, "--weights"),
            device=device,
            quick=quick,
            out=folder,
        )
        return _tables(order, as_json=as_json)
    fit, tried = (_QUICK_PARTS, _QUICK_TEST) if quick else (parts, test)
    given = _dataset(kind=dataset, root=root, line=line, parts=fit, test=tried, seed=seed)
    return _report(
        settings,
        given,
        products=product or sorted(given.line.products),
        seed=seed,
        quick=quick,
        reference=reference,
        out=folder,
        as_json=as_json,
    )


def _tables(order: "TablesOrder", *, as_json: bool) -> None:
    """The paper's tables."""
    from rich.console import Console

    from deploy.evaluation.tables_command import run_tables
    from deploy.evaluation.tables_terminal import show_tables

    with stage_bars() as progress:
        results = run_tables(order, progress=progress)
    if as_json:
        typer.echo(results.to_json())
        return
    show_tables(results, order.out / "tables.html", console=Console(highlight=False))


def _report(
    settings: "Settings",
    given: "Dataset",
    *,
    products: list[str],
    seed: int,
    quick: bool,
    reference: Path | None,
    out: Path,
    as_json: bool,
) -> None:
    """What a line's bundles reach."""
    from deploy.evaluation.command import Order, run_evaluation
    from deploy.evaluation.terminal import show

    order = Order(
        products=products[:1] if quick else products,
        seed=seed,
        quick=quick,
        reference=_reference(reference),
        out=out,
    )
    with stage_bars() as progress:
        evaluation = run_evaluation(settings, given, order, progress=progress)
    if as_json:
        typer.echo(evaluation.to_json())
        return
    show(evaluation, order.out)


def _dataset(
    *, kind: Kind, root: Path | None, line: Path | None, parts: int, test: int, seed: int
) -> "Dataset":
    from deploy.importing import folder_line, survey
    from training.evaluation.parts import FolderDataset
    from training.evaluation.plant import PlantDataset

    if kind == "plant":
        return PlantDataset(_plant_line(line), fit=parts, test=test, seed=seed)
    place = _needed(root, kind)
    if kind != "folder":
        from training.evaluation.published import PublishedDataset
        from training.published.layouts import published

        return PublishedDataset(published(kind, place), seed=seed)
    found = survey(place)
    good = found.parts.get("train/good", 0)
    return FolderDataset(place, folder_line(place.name, found.modalities, good=good))


def _needed(root: Path | None, kind: Kind) -> Path:
    if kind == "plant":
        raise typer.BadParameter("the plant's parts have the lite profile; give another --dataset")
    if root is None:
        raise typer.BadParameter("name where the parts are, such as --root objects/capsule")
    return root


def _plant_line(path: Path | None) -> "Line":
    from deploy.line_file import line_template, load_line, parse_line

    return parse_line(line_template()) if path is None else load_line(path)


def _reference(path: Path | None) -> "tuple[str, Extractor] | None":
    from inference.extractors import build_extractor, load_weights

    if path is None:
        return None
    return "ResNet-18", build_extractor("timm-resnet18", load_weights(path))
