"""What tests share: servers that start when first asked for, and a small line with its bundle."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.line import Line, Modality, Station
from connectors.messages import ProductPolicy
from deploy.embedded import EmbeddedStack

MakePart = Callable[..., "PartSample"]  # noqa: F821 - imported where the fixture runs


GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Mapping[str, Any]]:
    """Reads the arrays of one golden file, such as ``a_group``."""
    return lambda name: dict(np.load(GOLDEN / f"{name}.npz"))


@pytest.fixture(scope="session")
def authors_state() -> Callable[..., dict[str, "torch.Tensor"]]:  # noqa: F821 - heavy
    """Returns a maker of the state of a network of the authors, under their names.

    It takes a key of ``parameter_order`` in the index, and the gain; the recipe is in the index.
    """
    import torch

    order = json.loads((GOLDEN / "index.json").read_text())["parameter_order"]

    def make(network: str, *, gain: float) -> dict[str, torch.Tensor]:
        return {
            name: torch.from_numpy(_hash_filled(shape, name=name, number=number, gain=gain))
            for number, (name, shape) in enumerate(order[network])
        }

    return make


def _hash_filled(
    shape: list[int], *, name: str, number: int, gain: float
) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The weights of one tensor by exact integer arithmetic modulo 2**32."""
    count = int(np.prod(shape))
    low = np.uint64(0xFFFFFFFF)
    h = ((np.arange(count, dtype=np.uint64) + 1) * np.uint64(0x9E3779B1)) & low
    h ^= np.uint64(((number + 1) * 0x85EBCA77) & 0xFFFFFFFF)
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        h ^= h >> np.uint64(shift)
        h = (h * np.uint64(factor)) & low
    h ^= h >> np.uint64(15)
    u = h.astype(np.float64) / 2**32 * 2 - 1
    if len(shape) >= 2:
        u = gain * np.sqrt(6 / (count / shape[0])) * u
    elif name.endswith("weight"):
        u = 1 + 0.1 * u
    else:
        u = 0.05 * u
    return u.astype(np.float32).reshape(shape)


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of the one Apache Kafka of this test run."""
    folder = tmp_path_factory.mktemp("kafka")
    with EmbeddedStack(folder, redis=False, ray=False, on_progress=print) as stack:
        yield stack.addresses.kafka


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the one Redis of this test run."""
    folder = tmp_path_factory.mktemp("redis")
    with EmbeddedStack(folder, kafka=False, ray=False, on_progress=print) as stack:
        yield stack.addresses.redis


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the one Ray cluster of this test run; the environment lets this process join."""
    folder = tmp_path_factory.mktemp("ray")
    with (
        EmbeddedStack(folder, kafka=False, redis=False, on_progress=print) as stack,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in stack.addresses.environment().items():
            patch.setenv(name, value)
        yield stack.addresses.ray


@pytest.fixture(scope="session")
def small_line() -> Line:
    policy = {"minimum": ("rgb",), "deadline_ms": 1000, "false_reject_rate": 0.05}
    return Line(
        site="s",
        area="a",
        line="l",
        modalities={
            "rgb": Modality(kind="image", units="1"),
            "scan": Modality(kind="point-cloud", units="mm", extractor="surface"),
            "thermal": Modality(kind="image", units="degC"),
        },
        stations={
            "plc": Station(publishes=("process",)),
            "cell": Station(publishes=("rgb", "scan", "thermal")),
        },
        products={
            "tile": ProductPolicy(expected=("process", "rgb", "scan", "thermal"), **policy),
            "unfitted": ProductPolicy(expected=("rgb",), **policy),
        },
    )


@pytest.fixture(scope="session")
def make_sample() -> MakePart:
    """Returns a maker of parts: a bumpy plate, seen in colour, height and heat."""
    from training.datasets import PartSample

    def make(seed: int, *, defect: bool = False, side: int = 48) -> PartSample:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:side, 0:side] / side
        bumps = np.sin(9 * x + rng.normal(0, 0.3)) * np.cos(7 * y + rng.normal(0, 0.3))
        if defect:
            bumps = bumps + 6 * np.exp(-((x - 0.4) ** 2 + (y - 0.6) ** 2) / 0.002)
        noise = lambda: rng.normal(0, 0.05, (side, side))  # noqa: E731
        grey = 110 + 40 * (bumps + noise())
        rgb = np.stack((grey, 0.9 * grey + 5 * noise(), 0.8 * grey), axis=-1)
        height = (bumps + noise()).astype(np.float32)
        height[rng.random((side, side)) < 0.01] = np.nan
        points = np.stack((60 * x, 60 * y, height), axis=-1).astype(np.float32)
        points[np.isnan(height)] = np.nan
        return PartSample(
            key=f"p{seed}",
            product="tile",
            lot=f"L{seed}",
            captures={
                "rgb": rgb.clip(0, 255).astype(np.uint8),
                "scan": points,
                "thermal": (30 + 2 * bumps + noise()).astype(np.float32),
            },
            label="defective" if defect else "good",
        )

    return make


@pytest.fixture(scope="session")
def small_fit() -> Iterator[None]:
    """While in use, fitting takes a second: small banks, few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.bank.BANK_ROWS", 200)
        patch.setattr("training.bank.CANDIDATES_MAX", 2_000)
        patch.setattr("training.tokens.TOKENS_MAX", 4_000)
        patch.setattr("training.distill.STEPS", 40)
        yield


@pytest.fixture(scope="session")
def bundle_path(
    small_line: Line,
    make_sample: MakePart,
    small_fit: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a bundle of `tile`, fitted on 60 good parts."""
    from training.fit import fit_product

    return fit_product(
        [make_sample(seed) for seed in range(60)],
        product="tile",
        line=small_line,
        out=tmp_path_factory.mktemp("bundles"),
        progress=lambda _stage, _done: None,
    )
