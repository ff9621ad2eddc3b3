"""The scorers on a real local Ray: swapped, scaled and killed while parts are being judged."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import Self

import pytest
import torch
from safetensors.torch import save

from connectors.errors import Poison
from connectors.line import Line, Modality, Station
from connectors.messages import Closed, Evidence, PartKey, ProductPolicy, Verdict
from connectors.ports import SealedEvidence
from inference.bundle import MANIFEST, TENSORS, Manifest
from inference.registry import BundleRegistry
from waiting import until

pytestmark = [
    pytest.mark.integration,
    # ray.serve declares its own pydantic fields in a way that pydantic deprecates.
    pytest.mark.filterwarnings(
        "ignore:Using extra keyword arguments on `Field`:DeprecationWarning"
    ),
]

WAIT_S = 120.0
POLICY = ProductPolicy(expected=("camera",), deadline_ms=1000)
LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={"camera": Modality(kind="image", units="1")},
    stations={"one": Station(publishes=("camera",))},
    products={"can": POLICY},
)


def evidence(number: int) -> Evidence:
    """A part of which nothing came: the real scorer calls it undecidable without a model."""
    return Evidence(
        part=PartKey(site="s", line="l", part_id=f"p{number}"),
        revision=1,
        product="can",
        closed=Closed.DEADLINE,
        opened_offset=number,
        opened_at_ms=1,
        closed_offset=number,
        closed_at_ms=2,
        items=(),
        policy_digest="0" * 64,
        policy=POLICY,
    )


def bundle(folder: Path, *, seed: int) -> Path:
    """The smallest bundle that loads: a product with no modality."""
    data = save({"none": torch.zeros(1)})
    manifest = Manifest(
        product="can",
        line=LINE.name,
        eyes={},
        pairs=(),
        subsets={},
        roles={},
        data_digest="0" * 64,
        seed=seed,
        versions={},
        tensors_sha256=sha256(data).hexdigest(),
    )
    raw = manifest.to_bytes()
    path = folder / sha256(raw).hexdigest()
    path.mkdir(parents=True)
    (path / MANIFEST).write_bytes(raw)
    (path / TENSORS).write_bytes(data)
    return path


class Plant:
    """A registry with bundles `a` and `b`, and the means to deploy from it."""

    def __init__(self, folder: Path) -> None:
        self.registry = BundleRegistry(folder / "registry")
        self.payloads = f"file://{folder / 'payloads'}"
        self.a, self.b = (self.registry.add(bundle(folder, seed=seed)) for seed in (1, 2))

    def deploy(self, digest: str, *, replicas: int = 1) -> None:
        from inference.serve import deploy_scorer

        deploy_scorer(
            line=LINE,
            registry_root=self.registry.root,
            payloads_url=self.payloads,
            champions={"can": digest},
            replicas=replicas,
        )


@pytest.fixture(scope="module")
def plant(ray_address, tmp_path_factory) -> Iterator[Plant]:
    import ray
    from ray import serve

    from inference.serve import join_ray

    join_ray(ray_address)
    yield Plant(tmp_path_factory.mktemp("plant"))
    serve.shutdown()
    ray.shutdown()


@pytest.fixture
def scorer(plant) -> Iterator:
    from inference.serve import ServeScorer

    plant.deploy(plant.a)
    scorer = ServeScorer()
    yield scorer
    scorer.close()


class Stream:
    """Parts that come without pause, as long as the context; every one must get its verdict."""

    def __init__(self, scorer) -> None:
        self._scorer = scorer
        self._stop = Event()
        self._thread = Thread(target=self._run)
        self.asked: list[Evidence] = []
        self.verdicts: list[Verdict] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for_more(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)

    def wait_for_more(self, count: int) -> None:
        wanted = len(self.verdicts) + count
        until(lambda: len(self.verdicts) >= wanted)

    def _run(self) -> None:
        while not self._stop.is_set():
            first = len(self.asked)
            batch = [evidence(first + i) for i in range(4)]
            sealed = [SealedEvidence.of(each) for each in batch]
            answers: list[Future[list[bytes]]] = [
                self._scorer.score(sealed[:2]),
                self._scorer.score(sealed[2:]),
            ]
            self.asked += batch
            for answer in answers:
                self.verdicts += [Verdict.from_bytes(raw) for raw in answer.result(WAIT_S)]


def pids() -> set[int]:
    from inference.serve import replica_states

    return {state.pid for state in replica_states()}


def assert_all_judged(stream: Stream) -> None:
    assert [v.part for v in stream.verdicts] == [e.part for e in stream.asked]
    assert {v.reasons for v in stream.verdicts} == {("nothing_to_score",)}


def test_a_swap_reaches_every_replica_and_fails_no_request(plant, scorer) -> None:
    """New heads judge within a moment, in the same processes, while parts keep coming."""
    from inference.serve import replica_states, swap

    plant.deploy(plant.a, replicas=2)
    before = pids()
    with Stream(scorer) as stream:
        for digest in (plant.b, plant.a, plant.b):
            assert swap({"can": digest}) < WAIT_S
            assert [state.digests for state in replica_states()] == [{"can": digest}] * 2
            stream.wait_for_more(4)
    assert pids() == before
    assert_all_judged(stream)


def test_a_bundle_that_cannot_be_loaded_never_judges(plant, scorer) -> None:
    """The swap says why, and what judged before judges on, in later replicas too."""
    from inference.serve import replica_states, scale, swap

    broken = plant.registry.root / "bundles" / ("f" * 64)
    broken.mkdir(exist_ok=True)
    with Stream(scorer) as stream:
        with pytest.raises(Poison, match="could not load"):
            swap({"can": broken.name})
        scale(2)
        until(lambda: [s.digests for s in replica_states()] == [{"can": plant.a}] * 2)
        until(lambda: all(state.error is None for state in replica_states()))
        stream.wait_for_more(4)
    assert_all_judged(stream)


def test_scaling_and_deploying_again_restart_no_replica(plant, scorer) -> None:
    """An operator's + and - concern only the replicas that come and go."""
    from inference.serve import scale, wanted_replicas

    (first,) = pids()
    with Stream(scorer) as stream:
        scale(2)
        until(lambda: len(pids()) == 2)
        plant.deploy(plant.a, replicas=2)
        assert first in pids()
        scale(1)
        until(lambda: len(pids()) == 1)
        assert wanted_replicas() == 1
        stream.wait_for_more(4)
    assert_all_judged(stream)


def test_parts_are_judged_after_the_only_replica_was_killed(plant, scorer) -> None:
    """A killed scorer costs seconds, and no verdict."""
    (killed,) = pids()
    with Stream(scorer) as stream:
        os.kill(killed, signal.SIGKILL)
        until(lambda: pids() - {killed})
        stream.wait_for_more(8)
    assert_all_judged(stream)
