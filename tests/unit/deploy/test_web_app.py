"""The web process refuses what it must, without a browser."""

import json
import time

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from connectors.errors import Poison, Unavailable
from connectors.line import Line, Modality, Station
from connectors.memory import MemoryLog, MemoryPayloadStore
from connectors.messages import PayloadRef, ProductPolicy
from connectors.ports import Outgoing, TopicSpec
from connectors.simulator.encoding import encode
from deploy.web.app import make_app
from deploy.web.render import picture, value_range

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Using `httpx` with:starlette.exceptions.StarletteDeprecationWarning"
    ),
]

LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={"rgb": Modality(kind="image", units="1")},
    stations={"camera": Station(publishes=("rgb",))},
    products={"can": ProductPolicy(expected=("rgb",), deadline_ms=1_000)},
)
ORIGIN = {"Origin": "http://127.0.0.1"}


@pytest.fixture
def pressed():
    return []


@pytest.fixture
def log():
    log = MemoryLog()
    log.ensure_topics(
        [TopicSpec(name=LINE.topic("verdicts"), partitions=1, retention_ms=60_000_000)]
    )
    return log


@pytest.fixture
def client(pressed, log):
    def control(command):
        pressed.append(command)
        if command == "kill-worker":
            raise Poison(command, "no worker runs")
        if command == "kill-scorer":
            raise Unavailable("no answer")
        return {"unplugged": "camera"}

    app = make_app(
        line=LINE, log=log, store=MemoryPayloadStore(), control=control, banner={"title": "x"}
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def test_a_command_from_another_origin_is_refused(client, pressed) -> None:
    """Only the page itself may press buttons: another site's page in the same browser may not."""
    for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert client.post("/api/control/unplug/camera", headers=headers).status_code == 403
    assert pressed == []


def test_a_foreign_host_name_is_refused(client) -> None:
    """A name that was rebound to loopback gets no page."""
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("command", ["unplug/nobody", "unplug", "format-disk", "kill-scorer/x"])
def test_an_unknown_command_is_refused(client, pressed, command: str) -> None:
    """Only the four verbs, and only stations of this line."""
    assert client.post(f"/api/control/{command}", headers=ORIGIN).status_code == 404
    assert pressed == []


def test_what_the_line_refuses_is_told(client) -> None:
    """Poison is the caller's fault, Unavailable is not; both are noted for the page."""
    assert client.post("/api/control/unplug/camera", headers=ORIGIN).status_code == 200
    assert client.post("/api/control/kill-worker", headers=ORIGIN).status_code == 409
    assert client.post("/api/control/kill-scorer", headers=ORIGIN).status_code == 503
    now = client.get("/api/snapshot").json()
    assert [a["ok"] for a in now["actions"]] == [True, False, False]
    assert now["actions"][1]["message"] == "kill-worker: no worker runs"
    assert now["unplugged"] == ["camera"]


def test_only_payloads_that_parts_name_are_served(client) -> None:
    """A digest alone opens nothing."""
    assert client.get(f"/payload/{'0' * 64}").status_code == 404
    assert client.get("/api/parts/s/l/none/1").status_code == 404


def test_the_process_says_how_it_is(client) -> None:
    """Alive, ready once the verdict topic was read, and counters as Prometheus text."""
    deadline = time.monotonic() + 10
    while client.get("/readyz").status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.get("/readyz").status_code == client.get("/livez").status_code == 200
    assert "hololine_lost 0" in client.get("/metrics").text


def test_an_unreadable_verdict_is_passed_over(client, log) -> None:
    """Bytes that are no verdict stop nothing: the reader goes on behind them."""
    writer = log.writer()
    writer.send(Outgoing(topic=LINE.topic("verdicts"), key=b"k", value=b"\xff")).result(5)
    deadline = time.monotonic() + 10
    while client.get("/readyz").status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.get("/livez").status_code == 200
    assert client.get("/api/parts").json() == []


def test_pages_ask_for_nothing_from_elsewhere(client) -> None:
    """The policy forbids it and the page names no other host."""
    page = client.get("/")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text


def reference(data: bytes, media_type: str, units: str = "1") -> PayloadRef:
    return PayloadRef(
        uri="x", sha256="0" * 64, size_bytes=len(data), media_type=media_type, units=units
    )


@pytest.mark.parametrize("modality", ["scan", "thermal"])
def test_arrays_become_pictures_of_their_own_geometry(modality: str) -> None:
    """Temperatures, and heights with holes, can be shown by a browser."""
    rng = np.random.default_rng(0)
    shape = {"scan": (12, 16, 3), "thermal": (12, 16)}[modality]
    array = rng.normal(20, 3, shape).astype(np.float32)
    if modality == "scan":
        array[:3] = np.nan
    data, media_type, units, _ = encode(modality, array)
    pixels, shown_as = picture(data, reference(data, media_type, units))
    shown = cv2.imdecode(np.frombuffer(pixels, np.uint8), cv2.IMREAD_COLOR)
    assert shown_as == "image/png"
    assert shown.shape[:2] == (12, 16)
    low, high = value_range(data, reference(data, media_type, units))
    assert low < high


@pytest.mark.parametrize(
    ("data", "media_type"),
    [(b"II*\0", "image/tiff"), (b"nothing", "image/tiff"), (b"x", "application/pdf")],
)
def test_what_is_no_picture_is_named(data: bytes, media_type: str) -> None:
    """Bytes that cannot be shown are Poison, never a crash."""
    with pytest.raises(Poison, match="payload"):
        picture(data, reference(data, media_type))


def test_a_scan_without_a_point_is_named() -> None:
    """All holes: nothing to show."""
    data, media_type, units, _ = encode("scan", np.full((8, 8, 3), np.nan, np.float32))
    with pytest.raises(Poison, match="nothing to show"):
        picture(data, reference(data, media_type, units))


def test_a_snapshot_is_json_from_the_first_moment(client) -> None:
    """The page may ask before the first verdict came."""
    assert json.dumps(client.get("/api/snapshot").json())
    assert client.get("/api/snapshot").json()["lost"] == 0
