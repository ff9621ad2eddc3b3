"""What `hololine model evaluate --profile paper` does: sources, eyes, kept work, one page."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from connectors.errors import Poison
from deploy.evaluation.tables_page import write_tables_page
from deploy.fingerprint import fingerprint
from training.cmdiad.eyes import Wanted, default_eye, make_eye
from training.cmdiad.methods import Protocol
from training.cmdiad.order import Order, Progress
from training.cmdiad.results import evaluate
from training.cmdiad.sources import FolderSource, PublishedSource, Source
from training.cmdiad.tables import Results
from training.published.layouts import published
from training.published.samples import SYNTHETIC

QUICK_EPOCHS: Final = 2
_PLANE_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TablesOrder:
    """What was asked for on the command line."""

    dataset: str
    root: Path
    protocol: Protocol
    categories: tuple[str, ...]
    """None: all of them."""
    seeds: tuple[int, ...]
    epochs: int
    share: float
    eyes: Mapping[str, str]
    weights: Mapping[str, str]
    device: str | None
    quick: bool
    out: Path


def run_tables(order: TablesOrder, *, progress: Progress) -> Results:
    """The tables are in ``tables.json`` and ``tables.html`` below `order.out`.

    What is done is kept below ``kept/`` there, under a fingerprint of data, order and code.

    Raises:
        Poison: No such class, no weights, or too few parts.
    """
    source = _source(order)
    device = _device(order.device)
    _refuse_unknown(order, source)
    eyes, weights = {}, []
    for name, kind in source.modalities.items():
        wanted = Wanted(
            network=order.eyes.get(name, default_eye(kind)), weights=order.weights.get(name)
        )
        eyes[name], told = make_eye(wanted, kind=kind, device=device)
        weights.append(told)
    every = source.categories()
    chosen = order.categories or every
    unknown = sorted({*chosen} - {*every})
    if unknown:
        raise Poison("class", f"{unknown[0]!r} is none of {', '.join(every)}")
    the_order = Order(
        source=source,
        categories=chosen[:1] if order.quick else chosen,
        eyes=eyes,
        weights=weights,
        protocol=order.protocol,
        seeds=order.seeds[:1] if order.quick else order.seeds,
        epochs=min(order.epochs, QUICK_EPOCHS) if order.quick else order.epochs,
        share=order.share,
        ablation=not order.quick,
        device=device,
        synthetic=(order.root / SYNTHETIC).exists(),
        commit=_commit(),
    )
    words = [source.name, source.version, order.protocol, str(the_order.epochs), str(order.share)]
    words += [f"{each.network} {each.source} {each.digest}" for each in weights]
    kept = fingerprint(*(word.encode() for word in (*words, device.type)))
    results = evaluate(the_order, folder=order.out / "kept" / kept, progress=progress)
    order.out.mkdir(parents=True, exist_ok=True)
    (order.out / "tables.json").write_text(results.to_json(), encoding="utf-8")
    write_tables_page(order.out / "tables.html", results)
    return results


def _refuse_unknown(order: TablesOrder, source: Source) -> None:
    known = ", ".join(source.modalities)
    for option, given in (("--eye", order.eyes), ("--weights", order.weights)):
        for name in given:
            if name not in source.modalities:
                raise Poison(option, f"{name!r} is no modality of these parts; they have {known}")


def _source(order: TablesOrder) -> Source:
    if order.dataset != "folder":
        return PublishedSource(published(order.dataset, order.root), seed=_PLANE_SEED)
    from deploy.importing import folder_line, survey

    found = survey(order.root)
    line = folder_line(order.root.name, found.modalities, good=found.parts.get("train/good", 0))
    return FolderSource(order.root, line.modalities)


def _device(name: str | None) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in {"cpu", "cuda"} or (name == "cuda" and not torch.cuda.is_available()):
        raise Poison("device", f"{name!r} is not here; use cpu, or cuda where a GPU is")
    return torch.device(name)


def _commit() -> str:
    """Of the code, where it is a checkout; else a fingerprint of it."""
    told = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or fingerprint()
