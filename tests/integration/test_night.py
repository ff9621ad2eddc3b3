"""A night on a real Ray cluster: from archived parts to a champion, with nothing left to chance."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from connectors.line import Line, Modality, Station
from connectors.messages import (
    Closed,
    Disposition,
    Evidence,
    EvidenceItem,
    NearlineResult,
    PartKey,
    PayloadRef,
    ProductPolicy,
    Selection,
    Verdict,
    verdict_id_of,
)
from connectors.payloads import FsspecPayloadStore, open_store
from connectors.ports import LogRecord
from inference.bundle import MANIFEST, Manifest
from inference.registry import BundleRegistry
from training.archive import Archive
from training.datasets import PartSample, Role, role_of
from training.fit import fit_product
from training.tables import CharacterisedPart

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    # ray.serve declares its own pydantic fields in a way that pydantic deprecates.
    pytest.mark.filterwarnings(
        "ignore:Using extra keyword arguments on `Field`:DeprecationWarning"
    ),
]

POLICY = ProductPolicy(
    expected=("scanner", "thermal", "process"), deadline_ms=1000, false_reject_rate=0.4
)
LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={
        "scanner": Modality(kind="height-map", units="mm"),
        "thermal": Modality(kind="height-map", units="K"),
    },
    stations={"one": Station(publishes=("scanner", "thermal", "process"))},
    products={"can": POLICY, "sheet": POLICY},
)
WANTED = {Role.FIT: 4, Role.TUNE: 4, Role.CALIBRATE: 8, Role.GATE: 6}


def lots() -> list[tuple[str, Role]]:
    """Lots of one part each, as many of each role as are needed."""
    left, found = dict(WANTED), []
    for number in range(1000):
        role = role_of(f"lot-{number}")
        if left[role]:
            left[role] -= 1
            found.append((f"lot-{number}", role))
    return found


def surfaces(seed: int, *, dented: bool) -> dict[str, np.ndarray]:
    """Two views of one rough plate; a dent shows in both."""
    rng = np.random.default_rng(seed)
    height = np.cumsum(rng.normal(0, 0.02, (64, 64)), axis=0).astype(np.float32)
    if dented:
        height[20:36, 20:36] -= 2
    noise = rng.normal(0, 0.05, height.shape)
    return {"scanner": height, "thermal": (300 + 3 * height + noise).astype(np.float32)}


class Site:
    """Archive, payloads and registry of a line that has characterised a few parts."""

    def __init__(self, folder: Path) -> None:
        self.store: FsspecPayloadStore = open_store(f"file://{folder / 'payloads'}")
        self.archive = Archive(str(folder / "archive"))
        self.registry = BundleRegistry(folder / "registry")
        self.folder = folder
        self.samples: list[PartSample] = []
        judged, found = [], []
        gate = [lot for lot, role in lots() if role is Role.GATE]
        for number, (lot, _) in enumerate(lots()):
            dented = lot in gate[::2]
            captures = surfaces(number, dented=dented)
            part = PartKey(site="s", line="l", part_id=f"p{number}")
            judged.append(_verdict(part, lot, {n: self.put(n, a) for n, a in captures.items()}))
            found.append(_result(part, "defective" if dented else "good"))
            label = "defective" if dented else "good"
            self.samples.append(
                PartSample(key=str(part), product="can", lot=lot, captures=captures, label=label)
            )
        self.archive.add([(_logged("verdicts", i, m), m) for i, m in enumerate(judged)], {0: 999})
        self.archive.add([(_logged("nearline", i, m), m) for i, m in enumerate(found)], {0: 999})

    def put(self, modality: str, array: np.ndarray) -> PayloadRef:
        path = self.folder / "capture.tif"
        tifffile.imwrite(path, array)
        units = LINE.modalities[modality].units
        return self.store.put(
            path.read_bytes(), media_type="image/tiff", units=units, shape=array.shape
        )

    def night(self, *, products=("can",), seed: int = 0, promote: bool = False):
        from training.night import run_night

        return run_night(
            archive=self.archive,
            registry=self.registry,
            line=LINE,
            store=self.store,
            products=products,
            ray_address=None,
            progress=lambda *_: None,
            seed=seed,
            promote=promote,
        )


def _verdict(part: PartKey, lot: str, payloads: dict[str, PayloadRef]) -> Verdict:
    items = tuple(
        EvidenceItem(
            event_id="e",
            offset=1,
            station="one",
            modality=name,
            capture_sequence=1,
            captured_at_ns=1,
            logged_at_ms=1,
            payload=ref,
        )
        for name, ref in payloads.items()
    )
    evidence = Evidence(
        part=part,
        revision=1,
        product="can",
        lot=lot,
        closed=Closed.COMPLETE,
        opened_offset=1,
        opened_at_ms=1,
        closed_offset=2,
        closed_at_ms=2,
        items=items,
        policy_digest="0" * 64,
        policy=POLICY,
    )
    return Verdict(
        verdict_id=verdict_id_of(part, 1),
        part=part,
        revision=1,
        product="can",
        disposition=Disposition.HOLD,
        false_reject_rate=0.4,
        promise_valid=False,
        evidence_digest=evidence.digest,
        evidence=evidence,
    )


def _result(part: PartKey, finding: str) -> NearlineResult:
    return NearlineResult.model_validate(
        {
            "part": part,
            "product": "can",
            "method": "CT",
            "finding": finding,
            "selection": Selection(policy="all", probability=1.0),
            "examined_at_ns": 1,
        }
    )


def _logged(entity: str, offset: int, message: Verdict | NearlineResult) -> LogRecord:
    return LogRecord(
        topic=LINE.topic(entity),
        partition=0,
        offset=offset,
        timestamp_ms=1,
        key=None,
        value=message.to_bytes(),
    )


@pytest.fixture(scope="module")
def site(ray_address, tmp_path_factory) -> Iterator[Site]:
    import ray

    from inference.serve import join_ray

    join_ray(ray_address)
    yield Site(tmp_path_factory.mktemp("site"))
    ray.shutdown()


def test_nights_follow_each_other(site) -> None:
    """The first night's bundle is the one a plain fit makes; the second descends from it.

    A product without parts is refused by name, and a part whose capture is gone is left out.
    """
    gone = CharacterisedPart(
        part="s/l/gone/1",
        product="can",
        lot="lot-1",
        finding="good",
        defect_kind=None,
        captures=dict.fromkeys(
            ("scanner", "thermal"), site.put("scanner", np.ones((64, 64), "f4"))
        ),
    )
    site.archive.add_commissioning([gone])  # its thermal picture claims to be in mm
    report = site.night(products=("can", "sheet"), promote=True)
    first, refused = report.products
    assert (refused.outcome, refused.challenger) == ("refused", None)
    assert "samples.fit" in refused.reason
    assert first.outcome == "promoted", first.reason
    assert first.parts == {"fit": 4, "tune": 4, "calibrate": 8, "gate": 3, "defective": 3}
    assert (first.unreadable, first.champion) == (1, None)
    assert "payload.units" in first.unreadable_why[0]
    torch.set_num_threads(1)  # as the tasks do: sums in another order differ in the last bit
    in_order = sorted(site.samples, key=lambda sample: sample.key)  # as the archive gives them
    plain = fit_product(
        in_order, product="can", line=LINE, out=site.folder / "plain", progress=lambda *_: None
    )
    challenger = site.registry.show(first.challenger)
    assert challenger == Manifest.from_bytes((plain / MANIFEST).read_bytes())
    assert first.challenger == plain.name
    assert site.registry.champions() == {"can": plain.name}
    complete = first.challenger_report.subsets[-1]
    assert (complete.good, complete.defective) == (3, 3)

    second = site.night(seed=1).products[0]
    assert (second.outcome, second.champion) == ("challenger", plain.name)
    assert second.challenger != plain.name
    assert site.registry.show(second.challenger).parents == (plain.name,)
    assert second.champion_report == first.challenger_report
    assert site.registry.champions() == {"can": plain.name}
