"""A PLC program that reads or subscribes to the scalars sees consistent, current verdicts."""

import math
import queue
from collections.abc import Iterator
from typing import Any

import pytest
from opcua import Client, ua

from connectors.clock import SystemClock
from connectors.line import Line, Modality, Station
from connectors.messages import (
    Closed,
    Disposition,
    Evidence,
    PartKey,
    ProductPolicy,
    Verdict,
    verdict_id_of,
)
from connectors.opcua import sink as sink_module
from connectors.opcua.nodes import DISPOSITION_CODES, NO_VERDICT, VERDICT
from connectors.opcua.sink import OpcUaVerdictSink

pytestmark = pytest.mark.filterwarnings(
    "ignore:datetime.datetime.utc:DeprecationWarning"  # python-opcua on Python 3.12 and later
)

LINE = Line(
    site="plant",
    area="cells",
    line="line1",
    modalities={"colour": Modality(kind="image", units="1")},
    stations={"plc": Station(publishes=("process",)), "camera": Station(publishes=("colour",))},
    products={"can": ProductPolicy(expected=("colour", "process"), deadline_ms=500)},
)
TOP = "ns=2;s=Hololine/line1"
WAIT_S = 20.0


def verdict(
    part_id: str,
    *,
    revision: int = 1,
    pass_number: int = 1,
    disposition: Disposition = Disposition.ACCEPT,
    p_value: float | None = 0.25,
) -> Verdict:
    part = PartKey(site="plant", line="line1", part_id=part_id, pass_number=pass_number)
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
        reasons=("late-modality", "colour"),
        p_value=p_value,
        false_reject_rate=0.01,
        promise_valid=True,
        evidence_digest=evidence.digest,
        evidence=evidence,
    )


@pytest.fixture(scope="module")
def sink() -> Iterator[OpcUaVerdictSink]:
    made = OpcUaVerdictSink(line=LINE, port=0, clock=SystemClock())
    yield made
    made.close()


@pytest.fixture
def client(sink: OpcUaVerdictSink) -> Iterator[Client]:
    made = Client(sink.endpoint, timeout=WAIT_S)
    made.connect()
    yield made
    made.disconnect()


def values(client: Client, folder: str = TOP) -> dict[str, Any]:
    return {name: client.get_node(f"{folder}/{name}").get_value() for name in VERDICT}


def test_all_values_of_a_verdict_are_plain_scalars(sink: OpcUaVerdictSink, client: Client) -> None:
    """Types are those a PLC program declares, on the line's nodes and on the part's."""
    shown = verdict("A-1", disposition=Disposition.REJECT)
    sink.show(shown)
    for folder in (TOP, f"{TOP}/Parts/A-1"):
        got = values(client, folder)
        assert got.pop("Updates") >= 1
        assert got == {
            "LastPartId": "A-1",
            "Pass": 1,
            "Disposition": "REJECT",
            "DispositionCode": 2,
            "Revision": 1,
            "PValue": 0.25,
            "Reasons": "late-modality;colour",
            "VerdictId": shown.verdict_id,
        }
        for name, kind in VERDICT.items():
            node = client.get_node(f"{folder}/{name}")
            assert node.get_data_type_as_variant_type() is ua.VariantType[kind]


def test_every_disposition_has_a_code_of_its_own() -> None:
    """A PLC program compares numbers; they are stable."""
    named = {disposition.name for disposition in Disposition} | {NO_VERDICT, ""}
    assert named == set(DISPOSITION_CODES)
    assert len(set(DISPOSITION_CODES.values())) == len(named)


def test_a_missing_p_value_is_not_a_number(sink: OpcUaVerdictSink, client: Client) -> None:
    """0 or 1 would read as a p-value."""
    sink.show(verdict("A-2", p_value=None, disposition=Disposition.UNDECIDABLE))
    assert math.isnan(values(client)["PValue"])


def test_no_verdict_is_said_and_replaced_by_a_verdict_that_comes_after_all(
    sink: OpcUaVerdictSink, client: Client
) -> None:
    """Once there is a verdict, NO_VERDICT cannot come back."""
    sink.show_no_verdict(part="plant/line1/B-1/1", reason="no-verdict-by-deadline")
    got = values(client)
    assert (got["LastPartId"], got["Disposition"], got["DispositionCode"]) == (
        "B-1",
        "NO_VERDICT",
        5,
    )
    assert (got["Revision"], got["VerdictId"]) == (0, "")
    assert got["Reasons"] == "no-verdict-by-deadline"
    sink.show(verdict("B-1"))
    sink.show_no_verdict(part="plant/line1/B-1/1", reason="no-verdict-by-deadline")
    assert values(client)["Disposition"] == "ACCEPT"


def test_a_part_never_goes_back_to_an_older_revision_or_pass(
    sink: OpcUaVerdictSink, client: Client
) -> None:
    """Nor does the line's latest: what is not newer of its part is not shown at all."""
    sink.show(verdict("C-1", revision=2, disposition=Disposition.REJECT))
    sink.show(verdict("C-1", revision=1))
    assert values(client, f"{TOP}/Parts/C-1")["Revision"] == 2
    sink.show(verdict("C-1", revision=1, pass_number=2))
    sink.show(verdict("C-1", revision=3, pass_number=1))
    for folder in (TOP, f"{TOP}/Parts/C-1"):
        got = values(client, folder)
        assert (got["Pass"], got["Revision"], got["Disposition"]) == (2, 1, "ACCEPT")


@pytest.mark.parametrize(
    "part_id",
    ["a/b;c=d", "ns=2;s=x", "%41", '"<&>"', "~" * 128, "Parts", "A-1.Revision", "A-1/Revision"],
)
def test_every_part_id_has_a_node_of_its_own(
    sink: OpcUaVerdictSink, client: Client, part_id: str
) -> None:
    """Browsing finds the part whatever characters its id holds."""
    sink.show(verdict(part_id))
    folders = client.get_node(f"{TOP}/Parts").get_children()
    ids = [folder.get_child(["2:LastPartId"]).get_value() for folder in folders]
    assert ids.count(part_id) == 1
    textual = client.get_node(folders[ids.index(part_id)].nodeid.to_string() + "/Revision")
    assert textual.get_value() == 1


class Told:
    """Keeps what a subscription brings."""

    def __init__(self) -> None:
        self.queue: queue.Queue[tuple[str, Any, bool]] = queue.Queue()

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        good = data.monitored_item.Value.StatusCode.is_good()
        self.queue.put((node.nodeid.Identifier, value, good))

    def wait_for(self, wanted: tuple[str, Any, bool]) -> None:
        while self.queue.get(timeout=WAIT_S) != wanted:
            pass


def test_quality_turns_bad_and_good_again_for_readers_and_subscribers(
    sink: OpcUaVerdictSink, client: Client
) -> None:
    """While the log is away nobody may act on old values; a verdict shown meanwhile comes after."""
    sink.show(verdict("D-1"))
    told = Told()
    subscription = client.create_subscription(20, told)
    node = f"{TOP}/LastPartId"
    subscription.subscribe_data_change(client.get_node(node))
    told.wait_for(("Hololine/line1/LastPartId", "D-1", True))
    sink.beat(healthy=False)
    told.wait_for(("Hololine/line1/LastPartId", None, False))
    for name in (node, f"{TOP}/Parts/D-1/Disposition"):
        with pytest.raises(ua.UaStatusCodeError):
            client.get_node(name).get_value()
    sink.show_no_verdict(part="plant/line1/D-2/1", reason="no-verdict-by-deadline")
    with pytest.raises(ua.UaStatusCodeError):
        client.get_node(f"{TOP}/Parts/D-2/Disposition").get_value()
    sink.beat(healthy=True)
    told.wait_for(("Hololine/line1/LastPartId", "D-2", True))
    assert values(client, f"{TOP}/Parts/D-1")["Disposition"] == "ACCEPT"
    subscription.delete()


def test_the_heartbeat_advances_whatever_the_quality(
    sink: OpcUaVerdictSink, client: Client
) -> None:
    """It says that the sink lives; the quality says whether it knows anything."""
    node = client.get_node(f"{TOP}/Heartbeat")
    seen = []
    for healthy in (True, False, True):
        sink.beat(healthy=healthy)
        seen.append(node.get_value())
    assert seen == [seen[0], seen[0] + 1, seen[0] + 2]


def test_only_the_last_parts_are_kept_and_the_oldest_nodes_are_gone(
    sink: OpcUaVerdictSink, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory does not grow with the parts: no node and no reference of a removed part is left."""
    for number in range(30):
        sink.show(verdict(f"F-{number}"))
    kept = len(sink._parts)
    monkeypatch.setattr(sink_module, "PARTS_MAX", kept)
    address_space = sink._server._server.iserver.aspace._nodes
    nodes_before = len(address_space)
    for number in range(kept + 5):
        sink.show(verdict(f"E-{number}"))
    sink.show(verdict("E-5", revision=2))  # young again
    sink.show(verdict("E-last"))
    assert len(address_space) == nodes_before
    folders = client.get_node(f"{TOP}/Parts").get_children()
    names = {folder.get_browse_name().Name for folder in folders}
    assert len(folders) == kept
    assert {"E-5", "E-last"} <= names
    assert not {"F-29", "E-0", "E-6"} & names


def test_a_client_cannot_write_a_verdict(sink: OpcUaVerdictSink, client: Client) -> None:
    """Dispositions come from the line alone, whoever one claims to be."""
    sink.show(verdict("G-1"))
    pretender = Client(sink.endpoint.replace("//", "//admin:admin@"), timeout=WAIT_S)
    pretender.connect()
    try:
        for who in (client, pretender):
            with pytest.raises(ua.UaStatusCodeError):
                who.get_node(f"{TOP}/Disposition").set_value("ACCEPT")
    finally:
        pretender.disconnect()
