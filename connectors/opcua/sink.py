"""The `sink` process: verdicts, and the lack of them, as scalar nodes on an OPC UA server.

The nodes are in `connectors/opcua/README.md`.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import structlog
from opcua import ua

from connectors.clock import Clock
from connectors.errors import MalformedMessage, Unavailable
from connectors.line import Line
from connectors.messages import PartKey, StationRecord, Verdict
from connectors.metrics import SINK_PARTS_WAITING
from connectors.opcua.deadlines import NoVerdictWatch, Recent
from connectors.opcua.nodes import (
    DISPOSITION,
    DISPOSITION_CODE,
    DISPOSITION_CODES,
    HEARTBEAT,
    LAST_PART_ID,
    NO_VERDICT,
    P_VALUE,
    PASS,
    REASONS,
    REVISION,
    UPDATES,
    VERDICT,
    VERDICT_ID,
)
from connectors.opcua.server import NodeServer
from connectors.ports import LogRecord, TopicReader, VerdictSink

PARTS_MAX: Final = 1000
_NAMESPACE: Final = 2
_POLL_S: Final = 0.05
_POLL_LIMIT: Final = 500
_BEAT_S: Final = 0.5
_REASONS_CHARACTERS_MAX: Final = 1024
_SEEN_MAX: Final = 20_000
_NOTHING: Final[Mapping[str, object]] = {
    PASS: 0,
    DISPOSITION: "",
    DISPOSITION_CODE: DISPOSITION_CODES[""],
    REVISION: 0,
    P_VALUE: float("nan"),
    REASONS: "",
    VERDICT_ID: "",
    UPDATES: 0,
    LAST_PART_ID: "",
}
"""What the nodes show before the first verdict, in the order of writing."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class _Part:
    """The nodes of one part, and which of its revisions they show."""

    folder: ua.NodeId
    nodes: dict[str, ua.NodeId]
    shown: tuple[int, int]  # pass, revision; NO_VERDICT is revision 0
    values: Mapping[str, object]


class OpcUaVerdictSink:
    """Verdicts on an OPC UA server of its own; see `VerdictSink`.

    ``Hololine/<line>`` shows the latest, ``Hololine/<line>/Parts/<part id>`` each of the last 1,000
    parts; a part id is percent-encoded there but for letters, digits and ``_.-~``. All values of
    a verdict change at once, `Updates` and `LastPartId` last. A revision that is not newer than
    the one shown of its part is ignored.

    Args:
        line: The line that is judged.
        port: TCP port, 0 for a free one.
        host: Address to listen on.
        clock: Gives the values' time stamps.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, *, line: Line, port: int, clock: Clock, host: str = "127.0.0.1") -> None:
        self._server = NodeServer(host=host, port=port, name=f"Hololine {line.name}", clock=clock)
        self._server.namespace(_NAMESPACE)
        root = ua.NodeId("Hololine", _NAMESPACE)
        top = ua.NodeId(f"Hololine/{line.line}", _NAMESPACE)
        self._parts_folder = ua.NodeId(f"{top.Identifier}/Parts", _NAMESPACE)
        self._server.add_folder(root, name="Hololine")
        self._server.add_folder(top, name=line.line, parent=root)
        self._server.add_folder(self._parts_folder, name="Parts", parent=top)
        self._nodes = self._server.add_scalars(top, {HEARTBEAT: "UInt32", **VERDICT})
        self._values: Mapping[str, object] = _NOTHING
        self._parts: OrderedDict[str, _Part] = OrderedDict()
        self._updates = self._heartbeat = 0
        self._healthy = True
        self._server.write({self._nodes[name]: value for name, value in _NOTHING.items()})
        self._server.start()

    @property
    def endpoint(self) -> str:
        """The URL that clients connect to."""
        return self._server.endpoint

    def show(self, verdict: Verdict) -> None:
        """See `VerdictSink.show`."""
        self._show(
            part=verdict.part,
            revision=verdict.revision,
            disposition=verdict.disposition.name,
            reasons=";".join(verdict.reasons),
            verdict_id=verdict.verdict_id,
            p_value=float("nan") if verdict.p_value is None else verdict.p_value,
        )

    def show_no_verdict(self, *, part: str, reason: str) -> None:
        """See `VerdictSink.show_no_verdict`; ignored once the part has a verdict."""
        self._show(
            part=PartKey.parse(part),
            revision=0,
            disposition=NO_VERDICT,
            reasons=reason,
            verdict_id="",
            p_value=float("nan"),
        )

    def beat(self, *, healthy: bool) -> None:
        """See `VerdictSink.beat`."""
        self._heartbeat = (self._heartbeat + 1) % 2**32
        recovered = healthy and not self._healthy
        spoiled = self._healthy and not healthy
        self._healthy = healthy

        def change() -> None:
            if spoiled:
                self._server.spoil([node for nodes, _ in self._shown() for node in nodes.values()])
            if recovered:
                for nodes, values in self._shown():
                    self._server.write({nodes[name]: value for name, value in values.items()})
            self._server.write({self._nodes[HEARTBEAT]: self._heartbeat})

        self._server.together(change)

    def close(self) -> None:
        """See `VerdictSink.close`."""
        self._server.stop()

    def _show(
        self,
        *,
        part: PartKey,
        revision: int,
        disposition: str,
        reasons: str,
        verdict_id: str,
        p_value: float,
    ) -> None:
        newest = (part.pass_number, revision)
        known = self._parts.get(part.part_id)
        if known is not None and newest <= known.shown:
            return
        self._updates = (self._updates + 1) % 2**32
        values: dict[str, object] = {
            PASS: part.pass_number,
            DISPOSITION: disposition,
            DISPOSITION_CODE: DISPOSITION_CODES[disposition],
            REVISION: revision,
            P_VALUE: p_value,
            REASONS: reasons[:_REASONS_CHARACTERS_MAX],
            VERDICT_ID: verdict_id,
            UPDATES: self._updates,
            LAST_PART_ID: part.part_id,
        }

        def change() -> None:
            shown = self._part(part.part_id)
            shown.shown, shown.values = newest, values
            self._values = values
            if self._healthy:
                for nodes in (shown.nodes, self._nodes):
                    self._server.write({nodes[name]: value for name, value in values.items()})
            else:
                self._server.spoil(list(shown.nodes.values()))

        self._server.together(change)

    def _part(self, part_id: str) -> _Part:
        """The part's nodes, made if need be, and now the youngest of the last 1,000."""
        known = self._parts.pop(part_id, None)
        if known is None:
            if len(self._parts) == PARTS_MAX:
                _, oldest = self._parts.popitem(last=False)
                self._server.remove(
                    oldest.folder,
                    children=list(oldest.nodes.values()),
                    parent=self._parts_folder,
                )
            name = quote(part_id, safe="")
            folder = ua.NodeId(f"{self._parts_folder.Identifier}/{name}", _NAMESPACE)
            self._server.add_folder(folder, name=name, parent=self._parts_folder)
            nodes = self._server.add_scalars(folder, VERDICT)
            known = _Part(folder=folder, nodes=nodes, shown=(0, 0), values=_NOTHING)
        self._parts[part_id] = known
        return known

    def _shown(self) -> list[tuple[Mapping[str, ua.NodeId], Mapping[str, object]]]:
        """Nodes and values of the line and of each part."""
        line = {name: self._nodes[name] for name in VERDICT}
        return [
            (line, self._values),
            *((part.nodes, part.values) for part in self._parts.values()),
        ]


def run_sink(
    *,
    sink: VerdictSink,
    records: TopicReader,
    verdicts: TopicReader,
    watch: NoVerdictWatch,
    clock: Clock,
    stop: threading.Event,
) -> None:
    """Show verdicts, and NO_VERDICT by `watch`, until `stop` is set; beat every 500 ms.

    While the log cannot be read the beats are unhealthy, and deadlines go on passing. After a
    start the verdicts that are already there are read first, so that none is called missing, and
    of them only the last of each of the last 1,000 parts is shown.

    Args:
        sink: Where to show them.
        records: The line's records, from where parts may still be owed a verdict.
        verdicts: The line's verdicts, from where they are to be shown.
        watch: Knows the deadlines.
        clock: Times the beats.
        stop: Ends the loop.
    """
    desk = _Desk(sink=sink, watch=watch)
    healthy = False
    next_beat_s = clock.monotonic_s()
    while not stop.is_set():
        try:
            desk.read(records=records, verdicts=verdicts)
            healthy = True
        except Unavailable as error:
            if healthy:
                log.warning("log_unavailable", reason=str(error))
            healthy = False
            stop.wait(_POLL_S)
        for part, reason in watch.due():
            log.warning("no_verdict", part=part, reason=reason)
            sink.show_no_verdict(part=part, reason=reason)
        SINK_PARTS_WAITING.set(watch.waiting)
        if clock.monotonic_s() >= next_beat_s:
            sink.beat(healthy=healthy)
            next_beat_s = clock.monotonic_s() + _BEAT_S


class _Desk:
    """Hands verdicts on to the sink, each once; before it opens only the last ones are kept."""

    def __init__(self, *, sink: VerdictSink, watch: NoVerdictWatch) -> None:
        self._sink = sink
        self._watch = watch
        self._seen = Recent(_SEEN_MAX)
        # Part id -> its last verdict, of the last parts; None once open.
        self._backlog: OrderedDict[str, Verdict] | None = OrderedDict()

    def read(self, *, records: TopicReader, verdicts: TopicReader) -> None:
        """Take what the log has; records only after the verdicts that were there at the start.

        Raises:
            Unavailable: The broker cannot be reached.
        """
        for record in verdicts.poll(timeout_s=_POLL_S, limit=_POLL_LIMIT):
            self._take_verdict(record)
        if self._backlog is not None:
            if not verdicts.caught_up():
                return
            backlog, self._backlog = self._backlog, None
            for verdict in backlog.values():
                self._sink.show(verdict)
        for record in records.poll(timeout_s=_POLL_S, limit=_POLL_LIMIT):
            self._take_record(record)

    def _take_verdict(self, record: LogRecord) -> None:
        """Settle the part and show the verdict, unless it was seen before."""
        try:
            verdict = Verdict.from_bytes(record.value or b"")
        except MalformedMessage as error:
            log.warning("verdict_malformed", offset=record.offset, reason=str(error))
            return
        self._watch.saw_verdict(str(verdict.part))
        if verdict.verdict_id in self._seen:
            return
        self._seen.add(verdict.verdict_id)
        if self._backlog is None:
            self._sink.show(verdict)
            return
        self._backlog[verdict.part.part_id] = verdict
        self._backlog.move_to_end(verdict.part.part_id)
        if len(self._backlog) > PARTS_MAX:
            self._backlog.popitem(last=False)

    def _take_record(self, record: LogRecord) -> None:
        """Start the part's deadline; all but station records are the worker's matter."""
        try:
            station_record = StationRecord.from_bytes(record.value or b"")
        except MalformedMessage:
            return
        self._watch.saw_record(
            str(station_record.part),
            product=station_record.product,
            logged_at_ms=record.timestamp_ms,
        )
