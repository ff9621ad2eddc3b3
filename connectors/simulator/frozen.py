"""What the generator makes by default, as a fingerprint: `python -m connectors.simulator.frozen`.

`frozen.json` has the block means of every capture of one good part and one part of each kind and
product. Accuracies are comparable only between runs of one version of the generator, named by
`generator_version`. What is added later is off by default and leaves the file as it is; `--write`
writes it anew.
"""

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from connectors.simulator.parts import DEFECTS, SHAM, SimulatedPart, make_part

PATH: Final = Path(__file__).with_name("frozen.json")
BLOCKS: Final = 8
"""Along each side of a capture."""
TOLERANCE: Final = {"rgb": 0.05, "scan": 0.002, "thermal": 0.005, "ct": 2.0}
"""How far block means may lie apart on another processor: grey levels, mm, K, counts."""
_DIGITS: Final = {"rgb": 2, "scan": 4, "thermal": 3, "ct": 1}
_SEED: Final = 20261124
_GRADE: Final = 4.0

Print = dict[str, dict[str, list[float]]]
"""Part -> modality -> block means, row by row."""


def fingerprint() -> Print:
    """The block means of what the generator makes by default now."""
    prints: Print = {}
    for product, kinds in DEFECTS.items():
        for kind in (None, *kinds, SHAM):
            part = make_part(product=product, seed=_SEED, defect=kind, grade=_GRADE, masks=False)
            prints[f"{product} {kind or 'good'}"] = _block_means(part)
    return prints


def deviations(one: Print, other: Print) -> dict[str, float]:
    """Modality -> the largest distance of two block means, as a multiple of the tolerance.

    Raises:
        ValueError: The two have not the same parts.
    """
    if one.keys() != other.keys():
        raise ValueError(f"parts {sorted(one.keys() ^ other.keys())} are in one print only")
    return {
        modality: max(
            float(np.abs(np.subtract(one[name][modality], other[name][modality])).max())
            for name in one
        )
        / allowed
        for modality, allowed in TOLERANCE.items()
    }


def generator_version() -> str:
    """The frozen generator's name: the first 12 digits of the SHA-256 of its fingerprint."""
    return sha256(PATH.read_bytes()).hexdigest()[:12]


def frozen() -> Print:
    """The fingerprint in the file."""
    content: Print = json.loads(PATH.read_text(encoding="utf-8"))
    return content


def _block_means(part: SimulatedPart) -> dict[str, list[float]]:
    views = {
        "rgb": part.captures["rgb"].mean(axis=2),
        "scan": part.captures["scan"][..., 2],
        "thermal": part.captures["thermal"],
        "ct": part.volume().mean(axis=0),
    }
    return {m: _means(view, digits=_DIGITS[m]) for m, view in views.items()}


def _means(view: NDArray[Any], *, digits: int) -> list[float]:
    side = view.shape[0] // BLOCKS
    blocks = view.astype(np.float64).reshape(BLOCKS, side, BLOCKS, side)
    return [round(float(value), digits) for value in np.nanmean(blocks, axis=(1, 3)).ravel()]


def main() -> None:
    """Compare with the file, or write it anew."""
    now = fingerprint()
    if "--write" in sys.argv:
        PATH.write_text(json.dumps(now) + "\n", encoding="utf-8")
    gaps = deviations(now, frozen())
    print(f"generator {generator_version()}", {m: round(gap, 3) for m, gap in gaps.items()})  # noqa: T201 - the output
    sys.exit(any(gap > 1 for gap in gaps.values()))


if __name__ == "__main__":
    main()
