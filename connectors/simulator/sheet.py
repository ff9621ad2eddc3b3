"""A sheet of kinds x modalities x grades: `python -m connectors.simulator.sheet OUT.png`."""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from connectors.simulator.encoding import png
from connectors.simulator.parts import DEFECTS, GRADES, INLINE, SHAM, SimulatedPart, make_part

_TILE = 128
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


def _tile(part: SimulatedPart, modality: str) -> NDArray[np.uint8]:
    view = part.volume() if modality == "ct" else part.captures[modality]
    tile = cv2.resize(picture(modality, view), (_TILE, _TILE), interpolation=cv2.INTER_AREA)
    mask = part.masks.get(modality)
    if mask is not None:
        whole = cv2.resize(mask.astype(np.uint8), (_TILE, _TILE), interpolation=0)
        outline, _ = cv2.findContours(whole, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for box in [cv2.boundingRect(np.vstack(outline))] if outline else []:
            across, down, width, height = box
            corner = (across + width + 4, down + height + 4)
            cv2.rectangle(tile, (across - 4, down - 4), corner, (0, 255, 80), 1)
    return np.asarray(tile, np.uint8)


def sheet(product: str, *, seed: int = 7) -> NDArray[np.uint8]:
    """Rows: good, sham and each kind on the same part; columns: modalities, each by grade."""
    rows = []
    for kind in (None, SHAM, *DEFECTS[product]):
        parts = [make_part(product=product, seed=seed, defect=kind, grade=g) for g in GRADES]
        row = np.hstack([_tile(part, m) for m in (*INLINE, "ct") for part in parts])
        label = f"{product}: {kind or 'good'}"
        cv2.putText(row, label, (4, 14), 0, 0.45, (255, 255, 0), 1)
        rows.append(row)
    return np.asarray(np.vstack(rows), np.uint8)


def main() -> None:
    """Write the sheet of every product to the path given as the first argument."""
    Path(sys.argv[1]).write_bytes(png(np.vstack([sheet(product) for product in DEFECTS])))


if __name__ == "__main__":
    main()
