"""A sheet of products x defects x modalities: `python -m connectors.simulator.sheet OUT.png`."""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from connectors.simulator.encoding import png
from connectors.simulator.parts import DEFECTS, SimulatedPart, make_part

_TILE = 256
_INFERNO = 14  # cv2.COLORMAP_INFERNO
_VIRIDIS = 16  # cv2.COLORMAP_VIRIDIS


def picture(modality: str, capture: NDArray[Any]) -> NDArray[np.uint8]:
    """A capture as a colour picture for people; holes in a scan are black."""
    if modality == "rgb":
        return np.asarray(capture, np.uint8)
    if modality == "ct":
        capture = capture[:9].mean(axis=0)
    values = capture[..., 2] if modality == "scan" else capture
    known = np.nan_to_num(values, nan=float(np.nanmin(values))).astype(np.float32)
    low, high = np.percentile(known, [22 if modality == "scan" else 1, 99.5])
    if modality == "scan":  # relief: height against its surroundings, so that 10 um show
        part = (np.abs(known - np.percentile(known, 60)) < 0.35).astype(np.float32)
        around = cv2.GaussianBlur(known * part, (0, 0), 6) / cv2.GaussianBlur(
            part + 1e-3, (0, 0), 6
        )
        known, low, high = known - around, -0.12, 0.12
    grey = np.asarray(np.clip((known - low) / (high - low), 0, 1) * 255, np.uint8)
    table = {"scan": _VIRIDIS, "thermal": _INFERNO}.get(modality)
    bgr = (
        cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if table is None else cv2.applyColorMap(grey, table)
    )
    bgr[np.isnan(values)] = 0
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _row(part: SimulatedPart) -> NDArray[np.uint8]:
    tiles = []
    for modality, capture in [*part.captures.items(), ("ct", part.volume())]:
        tile = cv2.resize(picture(modality, capture), (_TILE, _TILE), interpolation=0)
        mask = part.masks.get(modality)
        if mask is not None:
            whole = cv2.resize(mask.astype(np.uint8), (_TILE, _TILE), interpolation=0)
            outline, _ = cv2.findContours(whole, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            box = cv2.boundingRect(np.vstack(outline))
            cv2.rectangle(tile, (box[0] - 6, box[1] - 6, box[2] + 12, box[3] + 12), (0, 255, 80), 1)
        tiles.append(tile)
    row = np.hstack(tiles)
    cv2.putText(row, f"{part.product}: {part.defect or 'good'}", (6, 16), 0, 0.5, (255, 255, 0), 1)
    return np.asarray(row, np.uint8)


def sheet(product: str, *, seed: int = 7, grade: float = 8.0) -> NDArray[np.uint8]:
    """Rows: good, then each defect of `product` on that same part; columns: the modalities."""
    kinds = (None, *DEFECTS[product])
    rows = [_row(make_part(product=product, seed=seed, defect=k, grade=grade)) for k in kinds]
    return np.asarray(np.vstack(rows), np.uint8)


def main() -> None:
    """Write the sheet to the path given as the first argument."""
    columns = [sheet(product) for product in DEFECTS]
    tallest = max(column.shape[0] for column in columns)
    padded = [np.pad(c, ((0, tallest - c.shape[0]), (0, 8), (0, 0))) for c in columns]
    Path(sys.argv[1]).write_bytes(png(np.hstack(padded)))


if __name__ == "__main__":
    main()
