"""The methods that ask why one main modality gains more: one factor changed at a time.

They ask about one image and one cloud, by I-AUROC, with plain sums: a machine would undo factors.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from inference.model.grid import GRID
from inference.model.paper.heads import OURS, PAPER_EXACT
from training.cmdiad.ablation import Arm, Setting, Trial
from training.cmdiad.memories import Key, Name
from training.cmdiad.methods import Method, Protocol, own, told
from training.cmdiad.sources import Kind

_WEIGHTS = {"1.0": 1.0, "0.1": 0.1, "equal": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """All settings, the baseline first, and the methods that they need."""

    mains: tuple[str, str]
    """In the words of the tables: the cloud, the image."""
    trials: tuple[Trial, ...]
    methods: tuple[Method, ...]


def trials_of(
    modalities: Mapping[str, Kind], *, image_grid: int, protocol: Protocol
) -> Trials | None:
    """Every setting for both main modalities; None unless there are one image and one cloud.

    Args:
        modalities: Names and kinds.
        image_grid: Patches along a side of the image's own grid.
        protocol: Whose settings are the baseline.
    """
    images = [name for name, kind in modalities.items() if kind == "image"]
    clouds = [name for name, kind in modalities.items() if kind == "cloud"]
    if (len(images), len(clouds)) != (1, 1):
        return None
    cloud, image = clouds[0], images[0]
    methods: dict[str, Method] = {}
    trials = []
    for setting in _settings(native=image_grid, protocol=protocol):
        arms = []
        for main, other in ((cloud, image), (image, cloud)):
            real = _real(main, setting, image=image, native=image_grid)
            alone, both = _arm(real, other, setting, protocol=protocol)
            methods |= {alone.name: alone, both.name: both}
            arms.append(Arm(fused=both.name, alone=alone.name))
        trials.append(Trial(setting=setting, arms=(arms[0], arms[1])))
    return Trials(
        mains=(told(cloud), told(image)), trials=tuple(trials), methods=tuple(methods.values())
    )


def _settings(*, native: int, protocol: Protocol) -> Iterator[Setting]:
    gelu = (PAPER_EXACT if protocol == "paper" else OURS).final_gelu
    base = Setting(bank_side=native, weight="1.0", final_gelu=gelu, path_noise=False)
    yield base
    if native != GRID:
        yield replace(base, bank_side=56)
    yield replace(base, weight="0.1")
    yield replace(base, weight="equal")
    yield replace(base, final_gelu=not gelu)
    yield replace(base, path_noise=True)


def _real(main: str, setting: Setting, *, image: str, native: int) -> Key:
    """The main modality's own bank."""
    if main == image:
        return own(main) if setting.bank_side == native else Key("own fine", main, main)
    return Key("own noisy", main, main) if setting.path_noise else own(main)


def _arm(real: Key, other: str, setting: Setting, *, protocol: Protocol) -> tuple[Method, Method]:
    """The main modality alone, and with what it hallucinates."""
    base_gelu = (PAPER_EXACT if protocol == "paper" else OURS).final_gelu
    name: Name = "f2f" if setting.final_gelu == base_gelu else "f2f other end"
    hallucinated = Key("f2f noisy" if setting.path_noise else name, real.source, other)
    main = told(real.source)
    alone = Method(name=f"{main} alone ({real.name})", factors={real: 1.0}, maps=False)
    both = Method(
        name=f"{main} main, {setting.words}",
        factors={real: 1.0, hallucinated: _WEIGHTS[setting.weight]},
        maps=False,
        fusion="scaled sum" if setting.weight == "equal" else "sum",
    )
    return alone, both
