"""From good parts to a bundle in the registry, and onto the line that is up."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from connectors.errors import Poison
from connectors.line import Line
from deploy.settings import Settings
from deploy.wiring import join_ray, make_registry, running_settings
from training.datasets import PartSample, folder_samples, scored_modalities

COMMISSIONING_SEED: Final = 1

Progress = Callable[[str, float], None]
"""Takes the stage's name and how much of it is done, from 0 to 1."""


def plant_samples(
    line: Line, *, product: str, parts: int, progress: Progress
) -> Iterator[PartSample]:
    """`parts` good parts of the virtual plant, read back from the bytes that a station would send.

    Raises:
        Poison: The line does not know `product`, or the virtual plant does not make it.
    """
    from connectors.simulator.commissioning import commissioning_parts
    from connectors.simulator.encoding import encode
    from connectors.simulator.parts import DEFECTS, INLINE
    from inference.preprocess import checked, decode

    modalities = scored_modalities(line, product)
    if product not in DEFECTS or not set(modalities) <= set(INLINE):
        raise Poison(
            "product",
            f"the virtual plant does not make {product!r} with {', '.join(modalities)}; "
            "fit it with --folder from captures of good parts, or with --from-archive",
        )
    made = commissioning_parts(line=line, product=product, count=parts, seed=COMMISSIONING_SEED)
    for number, (key, part) in enumerate(made, start=1):
        captures = {}
        for name in modalities:
            data, media_type, _, _ = encode(name, part.captures[name])
            captures[name] = checked(decode(data, media_type=media_type), line.modalities[name])
        progress("parts", number / parts)
        yield PartSample(
            key=str(key), product=product, lot=part.lot, captures=captures, label="good"
        )


def good_folder_samples(line: Line, *, product: str, folder: Path) -> Iterator[PartSample]:
    """The good training parts of a folder of captures.

    Raises:
        Poison: The line does not know `product`, or `folder` is no folder.
    """
    modalities = {name: line.modalities[name] for name in scored_modalities(line, product)}
    for sample in folder_samples(folder, product=product, modalities=modalities, split="train"):
        if sample.label == "good":
            yield sample


def fit_and_add(
    settings: Settings,
    line: Line,
    *,
    product: str,
    folder: Path | None,
    parts: int,
    weights: Mapping[str, Path],
    progress: Progress,
) -> str:
    """A new bundle of `product` is in the registry; its digest.

    The first bundle of a product becomes its champion, on the running line too.

    Args:
        settings: Where the registry is.
        line: The line that the bundle is for.
        product: One of its products.
        folder: Captures to fit from; None fits from parts of the virtual plant.
        parts: How many parts of the virtual plant.
        weights: By modality, the safetensors file of its extractor; where none is given, those of
            the bundle that judges, if its extractor is the same.
        progress: See `Progress`.

    Raises:
        Poison: There is nothing, or too little, to fit from, or weights do not fit.
    """
    from inference.extractors import load_weights
    from training.fit import fit_product, known_weights

    if folder is not None:
        samples = list(good_folder_samples(line, product=product, folder=folder))
    else:
        samples = list(plant_samples(line, product=product, parts=parts, progress=progress))
    registry = make_registry(settings)
    before = registry.champion(product)
    ancestors: tuple[str, ...] = ()
    if before is not None:
        ancestors = (before.digest, *registry.show(before.digest).parents)
    path = fit_product(
        samples,
        product=product,
        line=line,
        out=settings.data_folder / "fitted",
        parents=ancestors,
        progress=progress,
        weights=known_weights(line, None if before is None else registry.load(before.digest))
        | {name: load_weights(file) for name, file in weights.items()},
    )
    digest = registry.add(path)
    if before is None:
        registry.promote(product, digest, why="first bundle")
        swap_running(settings, registry.champions())
    return digest


def swap_running(settings: Settings, champions: Mapping[str, str]) -> float | None:
    """The line that is up judges with `champions`; the seconds it took, None if no line is up.

    Raises:
        Poison: A replica could not load them; the line judges on with what it had.
        Unavailable: The scorers did not all answer in time.
    """
    running = running_settings(settings)
    if running.ray_address is None:
        return None
    join_ray(running)
    from inference.serve import swap

    return swap(champions)
