"""What tests share: servers that start when first asked for, and a small line with its bundle."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from connectors.line import Line, Modality, Station
from connectors.messages import ProductPolicy
from deploy.embedded import Addresses, EmbeddedStack

MakePart = Callable[..., "PartSample"]  # noqa: F821 - imported where the fixture runs


BENCHMARKS = Path(__file__).parent / "benchmarks"
GIVEN_KAFKA = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
"""Brokers of yours: tests that leave a broker as it is run on them."""


@pytest.fixture(scope="session")
def golden_vectors() -> ModuleType:
    """What reads the golden files; it lies beside the table of parity, which runs as a script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("golden_vectors")


@pytest.fixture(scope="session")
def golden(golden_vectors: ModuleType) -> Callable[[str], Mapping[str, Any]]:
    """Reads the arrays of one golden file, such as ``a_group``."""
    return golden_vectors.arrays


@pytest.fixture(scope="session")
def authors_state(
    golden_vectors: ModuleType,
) -> Callable[..., dict[str, "torch.Tensor"]]:  # noqa: F821 - heavy
    """Makes the state of a network of the authors, under their names."""
    return golden_vectors.authors_state


@pytest.fixture(scope="session")
def given_kafka() -> Addresses:
    """The brokers that KAFKA_BOOTSTRAP_SERVERS named when the run began, if it did."""
    return Addresses(kafka=GIVEN_KAFKA)


@pytest.fixture(scope="session")
def kafka_address(
    given_kafka: Addresses, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Bootstrap address of the one Apache Kafka of this test run."""
    folder = tmp_path_factory.mktemp("kafka")
    with EmbeddedStack(
        folder, redis=False, ray=False, given=given_kafka, on_progress=print
    ) as stack:
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


@pytest.fixture
def in_interpreter(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs code in another process whose Triton kernels are interpreted; what it printed."""
    # Triton comes with torch on Linux; where it does not, its kernels are never used either.
    pytest.importorskip("triton", reason="torch came without Triton here: CUDA alone needs it")
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    def run(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=Path(__file__).parents[1],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
