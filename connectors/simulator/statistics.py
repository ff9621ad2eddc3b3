"""One-number statistics of captures, and how surely one of them tells two groups apart."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from connectors.simulator.body import Field

CONFIDENCE: Final = 1.96
"""Standard errors from an estimate to the end of its 95 % interval."""
_PERCENTILES: Final = (1, 5, 25, 50, 75, 95, 99)


def one_numbers(modality: str, capture: NDArray[Any]) -> dict[str, float]:
    """Name -> value of everything that one number can say of a capture."""
    found: dict[str, float] = {}
    if modality == "rgb":
        for name, channel in zip(("red", "green", "blue"), np.moveaxis(capture, 2, 0), strict=True):
            found[f"mean {name}"] = float(channel.mean())
            found[f"sd {name}"] = float(channel.std())
        field = cv2.cvtColor(capture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    elif modality == "scan":
        field = np.asarray(capture[..., 2], np.float32)
        holes = np.isnan(field)
        found["hole share"] = float(holes.mean())
        field = np.where(holes, np.nanmedian(field), field)
    elif modality == "ct":
        for layer, values in enumerate(capture[::3]):
            found[f"mean of slice {3 * layer}"] = float(values.mean())
        found["sd of all"] = float(capture.std())
        found["min of all"], found["max of all"] = float(capture.min()), float(capture.max())
        field = capture.mean(axis=0, dtype=np.float32)
    else:
        field = np.asarray(capture, np.float32)
    return found | _of_field(field)


def _of_field(field: Field) -> dict[str, float]:
    across = cv2.Sobel(field, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(field, cv2.CV_32F, 0, 1)
    steep = np.hypot(across, down)
    bend = cv2.Laplacian(field, cv2.CV_32F)
    mean, spread = float(field.mean()), float(field.std())
    unit = (field - mean) / (spread or 1.0)
    percentiles = np.percentile(field, (*_PERCENTILES, 2, 98))
    middle = percentiles[-2:].mean()
    found = {
        "mean": mean,
        "sd": spread,
        "min": float(field.min()),
        "max": float(field.max()),
        "skew": float((unit**3).mean()),
        "kurtosis": float((unit**4).mean()),
        "area": float((field > middle).mean()),
        "gradient mean": float(steep.mean()),
        "gradient p99": float(np.percentile(steep, 99)),
        "gradient max": float(steep.max()),
        "laplacian sd": float(bend.std()),
        "laplacian max": float(np.abs(bend).max()),
    }
    return found | {f"p{q}": float(v) for q, v in zip(_PERCENTILES, percentiles[:-2], strict=True)}


def auroc(good: NDArray[np.float64], bad: NDArray[np.float64]) -> tuple[float, float]:
    """(AUROC, standard error) of `bad` above `good`, ties half.

    Source: DeLong et al., Biometrics 44, 837 (1988).
    """
    both = stats.rankdata(np.concatenate([good, bad]))
    n, m = len(good), len(bad)
    above_good = (both[n:] - stats.rankdata(bad)) / n
    below_bad = 1 - (both[:n] - stats.rankdata(good)) / m
    variance = above_good.var(ddof=1) / m + below_bad.var(ddof=1) / n
    return float(above_good.mean()), float(np.sqrt(variance))


def upper_bound(good: NDArray[np.float64], bad: NDArray[np.float64]) -> tuple[float, float]:
    """(AUROC in its better direction, upper end of its two-sided 95 % interval)."""
    value, error = auroc(good, bad)
    better = max(value, 1 - value)
    return better, min(1.0, better + CONFIDENCE * error)
