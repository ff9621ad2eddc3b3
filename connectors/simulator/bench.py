"""Parts per second on one core, all in-line modalities: `python -m connectors.simulator.bench`."""

import time

import cv2

from connectors.simulator.encoding import encode
from connectors.simulator.parts import DEFECTS, make_part

_PARTS = 40


def parts_per_s(product: str, *, defective: bool) -> float:
    """How many parts of `product` one core renders and encodes in a second."""
    kinds = DEFECTS[product]
    started_s = time.process_time()
    for seed in range(_PARTS):
        defect = kinds[seed % len(kinds)] if defective else None
        part = make_part(product=product, seed=seed, defect=defect)
        for modality, capture in part.captures.items():
            encode(modality, capture)
    return _PARTS / (time.process_time() - started_s)


def main() -> None:
    """Print the figures; seconds are those of the processor, so neighbours do not count."""
    cv2.setNumThreads(1)
    for product in DEFECTS:
        good, bad = (parts_per_s(product, defective=flag) for flag in (False, True))
        print(f"{product:10} good {good:5.1f} parts/s   defective, with masks {bad:5.1f} parts/s")  # noqa: T201 - the output


if __name__ == "__main__":
    main()
