"""What every `VerdictSink` promises, in memory and over OPC UA."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from opcua import Client, ua

from connectors.clock import SystemClock
from connectors.line import Line, Modality, Station
from connectors.memory import MemoryVerdictSink
from connectors.messages import (
    Closed,
    Disposition,
    Evidence,
    PartKey,
    ProductPolicy,
    Verdict,
    verdict_id_of,
)
from connectors.opcua.nodes import NO_VERDICT
from connectors.opcua.sink import OpcUaVerdictSink
from connectors.ports import VerdictSink

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning")

LINE = Line(
    site="plant",
    area="cells",
    line="line1",
    modalities={"colour": Modality(kind="image", units="1")},
    stations={"plc": Station(publishes=("process",)), "camera": Station(publishes=("colour",))},
    products={"can": ProductPolicy(expected=("colour", "process"), deadline_ms=500)},
)


@dataclass
class Harness:
    """A sink and what its reader sees of it."""

    sink: VerdictSink
    says: Callable[[str], tuple[str, int]]
    """Disposition and revision shown of a part id."""
    good: Callable[[], bool]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OpcUaVerdictSink, Client]]:
    sink = OpcUaVerdictSink(line=LINE, port=0, clock=SystemClock())
    client = Client(sink.endpoint, timeout=20)
    client.connect()
    yield sink, client
    client.disconnect()
    sink.close()


@pytest.fixture(params=["memory", "opcua"])
def harness(request: pytest.FixtureRequest) -> Harness:
    if request.param == "memory":
        return memory_harness()
    return opcua_harness(*request.getfixturevalue("served"))


def memory_harness() -> Harness:
    sink = MemoryVerdictSink()

    def says(part_id: str) -> tuple[str, int]:
        shown = [verdict for verdict in sink.shown if verdict.part.part_id == part_id]
        if shown:
            return shown[-1].disposition.name, shown[-1].revision
        missing = {PartKey.parse(part).part_id for part, _ in sink.without_verdict}
        assert part_id in missing
        return NO_VERDICT, 0

    return Harness(sink=sink, says=says, good=lambda: sink.beats[-1])


def opcua_harness(sink: OpcUaVerdictSink, client: Client) -> Harness:
    top = "ns=2;s=Hololine/line1"

    def says(part_id: str) -> tuple[str, int]:
        folder = f"{top}/Parts/{quote(part_id, safe='')}"
        disposition = client.get_node(f"{folder}/Disposition").get_value()
        return disposition, client.get_node(f"{folder}/Revision").get_value()

    def good() -> bool:
        try:
            client.get_node(f"{top}/LastPartId").get_value()
        except ua.UaStatusCodeError:
            return False
        return True

    return Harness(sink=sink, says=says, good=good)


def verdict(part_id: str, *, revision: int, disposition: Disposition) -> Verdict:
    part = PartKey(site="plant", line="line1", part_id=part_id)
    evidence = Evidence(
        part=part,
        revision=revision,
        product="can",
        closed=Closed.COMPLETE,
        opened_offset=0,
        opened_at_ms=1,
        closed_offset=1,
        closed_at_ms=2,
        items=(),
        policy_digest="0" * 64,
        policy=LINE.products["can"],
    )
    return Verdict(
        verdict_id=verdict_id_of(part, revision),
        part=part,
        revision=revision,
        product="can",
        disposition=disposition,
        false_reject_rate=0.01,
        promise_valid=True,
        evidence_digest=evidence.digest,
        evidence=evidence,
    )


@pytest.mark.parametrize("disposition", list(Disposition))
def test_a_verdict_is_shown_of_its_part(harness: Harness, disposition: Disposition) -> None:
    """Every disposition reaches the reader."""
    harness.sink.show(verdict(f"A/{disposition}", revision=1, disposition=disposition))
    assert harness.says(f"A/{disposition}") == (disposition.name, 1)


def test_a_newer_revision_replaces_the_older_and_the_same_again_is_harmless(
    harness: Harness,
) -> None:
    """At least once, revisions in order: what is delivered twice changes nothing."""
    first = verdict("B", revision=1, disposition=Disposition.ACCEPT)
    second = verdict("B", revision=2, disposition=Disposition.REJECT)
    for shown in (first, second, second):
        harness.sink.show(shown)
    assert harness.says("B") == ("REJECT", 2)


def test_the_lack_of_a_verdict_is_said_until_there_is_one(harness: Harness) -> None:
    """Never silence; and a verdict that comes after all is shown."""
    harness.sink.show_no_verdict(part="plant/line1/C/1", reason="no-verdict-by-deadline")
    assert harness.says("C") == (NO_VERDICT, 0)
    harness.sink.show(verdict("C", revision=1, disposition=Disposition.HOLD))
    assert harness.says("C") == ("HOLD", 1)


def test_quality_follows_the_last_beat(harness: Harness) -> None:
    """An unhealthy line is seen as such, and its recovery too."""
    for healthy in (True, False, False, True):
        harness.sink.beat(healthy=healthy)
        assert harness.good() is healthy
