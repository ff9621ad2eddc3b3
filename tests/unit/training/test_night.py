"""The rules of a night: what is refused, what is promoted, what people are told."""

import json
from dataclasses import replace
from io import StringIO
from types import ModuleType, SimpleNamespace

import pytest
from rich.console import Console

from connectors.errors import Poison
from connectors.messages import PayloadRef
from inference.bundle import Manifest, RoleEntry
from inference.registry import BundleRegistry
from training.datasets import PartSample, Role, role_of
from training.evaluate import Report, SubsetReport
from training.naturally_missing import LOTS_MIN
from training.tables import CharacterisedPart

PAYLOAD = PayloadRef(uri="x", sha256="0" * 64, size_bytes=1, media_type="image/png")

# ray.serve declares its own pydantic fields in a way that pydantic deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Using extra keyword arguments on `Field`:DeprecationWarning"
)


@pytest.fixture
def night() -> ModuleType:
    import training.night

    return training.night


def report(
    bundle: str, *, auroc: float | None = 0.9, rejected: float | None = 0.0, good: int = 20
) -> Report:
    def row(*present: str) -> SubsetReport:
        return SubsetReport(
            present=present,
            good=good,
            defective=5,
            auroc=auroc if len(present) == 2 else 0.5,
            auroc_without_hallucination=None,
            false_reject_rate_promised=0.05,
            false_reject_rate=rejected,
            escape_rate=0.4,
        )

    rows = (row("a"), row("a", "b"), row("b"))
    return Report(bundle=bundle, product="can", subsets=rows, mains=())


def sample(lot: str) -> PartSample:
    return PartSample(key=lot, product="can", lot=lot, captures={}, label="good")


def manifest(role: str, *lots: str) -> Manifest:
    return Manifest(
        product="can",
        line="s.a.l",
        eyes={},
        pairs=(),
        subsets={},
        roles={role: RoleEntry(parts=len(lots), lots=lots)},
        data_digest="0" * 64,
        seed=0,
        versions={},
    )


def one_night(night: ModuleType, **fields: object) -> object:
    given = {
        "product": "can",
        "outcome": "challenger",
        "reason": "not promoted",
        "parts": {"fit": 4},
        "unreadable": 0,
        "unreadable_why": (),
        "not_random": 0,
        "champion": "a" * 64,
        "challenger": "b" * 64,
        "champion_report": report("a" * 64),
        "challenger_report": report("b" * 64),
    }
    return night.ProductNight(**given | fields)


@pytest.mark.parametrize(
    ("auroc", "rejected", "why"),
    [
        (0.9, 0.0, None),
        (0.86, 0.04, None),
        (0.8, 0.0, "AUROC 0.800"),
        (0.95, 0.2, "20.0% of good parts"),
        (None, None, None),
    ],
)
def test_only_a_clear_loss_on_complete_parts_counts_as_worse(night, auroc, rejected, why) -> None:
    """A handful of held-out parts may not decide by noise."""
    found = night.worse(report("b", auroc=auroc, rejected=rejected), report("a"))
    assert (found is None) if why is None else (why in found)


def test_a_first_bundle_is_never_worse(night) -> None:
    """With no champion, or nothing held out, there is nothing to be worse than."""
    assert night.worse(report("b"), None) is None
    assert night.worse(None, None) is None


def test_a_clearly_worse_challenger_is_not_promoted(night) -> None:
    """Asking for a promotion is no order to make the line worse."""
    loser = one_night(night, challenger_report=report("b" * 64, auroc=0.5))
    assert night.decided(loser).outcome == "challenger"
    assert "clearly worse" in night.decided(loser).reason
    assert night.decided(one_night(night)).outcome == "promoted"


def test_a_refused_product_and_an_unchanged_bundle_are_left_alone(night) -> None:
    """There is nothing to promote."""
    refused = one_night(night, outcome="refused", challenger=None)
    assert night.decided(refused) == refused
    same = one_night(night, challenger="a" * 64)
    assert night.decided(same).outcome == "challenger"


def test_a_lot_that_changed_its_role_stops_the_night(night) -> None:
    """A part that an ancestor learned from would be held out, and the comparison a lie."""
    lot = "lot-1"
    role = role_of(lot)
    other = Role.FIT if role is not Role.FIT else Role.GATE
    night.refuse_mixed_roles([sample(lot)], [manifest(role.value, lot, "other-lot")])
    with pytest.raises(Poison, match=lot):
        night.refuse_mixed_roles([sample(lot)], [manifest(other.value, lot)])


def test_the_report_is_for_people_and_for_machines(night) -> None:
    """The same figures, with how many parts they rest on."""
    found = night.NightReport(products=(one_night(night),), seconds=2.0, swap_s=None)
    console = Console(width=160, record=True, file=StringIO())
    console.print(found)
    assert "20 good, 5 defective" in console.export_text()
    (product,) = json.loads(found.to_json())["products"]
    assert product["challenger_report"]["subsets"][1]["auroc"] == 0.9


def test_the_report_says_what_became_of_the_promise(night) -> None:
    """Parts left out of the calibration, and subsets that promise nothing, are told."""
    doubtful = one_night(night, not_random=7, withdrawn=("rgb", "rgb+scan"))
    console = Console(width=240, record=True, file=StringIO())
    console.print(night.NightReport(products=(doubtful,), seconds=2.0, swap_s=None))
    text = console.export_text()
    assert "7 not chosen at random left out of calibration" in text
    assert "promise withdrawn for rgb, rgb+scan" in text


def test_a_night_holds_short_parts_of_the_calibrate_role_against_masked_ones(
    night, monkeypatch, bundle_path, make_sample, small_line, tmp_path
) -> None:
    """Shiny good parts that came without scan cost rgb+thermal its promise; the report says so.

    Parts of lots that fit, tune or gate are not looked at: banks may know parts like them.
    """
    shiny = {f"p{2000 + i}": make_sample(2000 + i, defect=True) for i in range(60)}
    parts = [
        CharacterisedPart(
            part=sample.key,
            product="tile",
            lot=sample.lot,
            finding="good",
            defect_kind=None,
            captures=dict.fromkeys(("rgb", "thermal", "retired"), PAYLOAD),
        )
        for sample in shiny.values()
    ]
    read: list[str] = []

    def stored(found, **_):
        read.extend(part.lot for part in found)
        return [_short(shiny[part.part], part.captures) for part in found], {}

    def in_process(function, calls, _stage, _progress, **common):
        return [function(*call, **common) for call in calls]

    monkeypatch.setattr(night, "stored_samples", stored)
    monkeypatch.setattr(night, "run_tasks", in_process)
    monkeypatch.setattr(night, "fit_by_tasks", lambda *_, **__: bundle_path)
    found = night._Night(
        "tile",
        SimpleNamespace(fully_characterised=lambda _: [], naturally_missing=lambda _: parts),
        BundleRegistry(tmp_path),
        line=small_line,
        store=None,
        progress=lambda *_: None,
    ).run(0)
    assert {role_of(lot) for lot in read} == {Role.CALIBRATE}
    assert len(read) >= LOTS_MIN
    assert found.withdrawn == ("rgb+thermal",)
    assert f"{len(read)} lots" in found.masking["rgb+thermal"]
    assert found.masking["rgb"].startswith("not checked: 0 lots")
    assert found.challenger != bundle_path.name


def _short(sample: PartSample, present) -> PartSample:
    captures = {name: sample.captures[name] for name in present}
    return replace(sample, captures=captures, label="good")
