"""What scorers on Ray Serve judged is derived again without them, byte for byte."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from connectors.clock import SystemClock
from connectors.kafka import KafkaLog
from connectors.line import Line, Topics
from connectors.messages import PartKey, StationRecord, Verdict, event_id_of
from connectors.payloads import FsspecPayloadStore
from connectors.ports import Outgoing, Scorer
from connectors.simulator.encoding import encode
from deploy.wiring import ensure_line_topics, read_all
from inference.registry import BundleRegistry
from ingest.service import Worker
from ingest.store import RedisJoinStore
from waiting import beside

pytestmark = [
    pytest.mark.integration,
    # ray.serve declares its own pydantic fields in a way that pydantic deprecates.
    pytest.mark.filterwarnings(
        "ignore:Using extra keyword arguments on `Field`:DeprecationWarning"
    ),
]

BOUND_S = 60.0
ROOT = Path(__file__).parents[2]
ENTITIES = ("records", "verdicts", "dead-letters", "nearline", "policies")


@dataclass
class Judged:
    """A line that has judged some parts, and where all of it lies."""

    line: Line
    log: KafkaLog
    folder: Path
    kafka: str
    redis_url: str
    payloads: FsspecPayloadStore
    digest: str

    def send(self, part_id: str, captures: dict, *items: str, sequence: int = 1) -> None:
        """Stations publish these items of a part."""
        part = PartKey(site="s", line="l", part_id=part_id)
        writer, now_ns = self.log.writer(), SystemClock().now_ns()
        for item in items:
            station = self.line.owners()[item]
            record = StationRecord(
                event_id=event_id_of(part, station, item, sequence),
                part=part,
                product="tile",
                station=station,
                modality=item,
                capture_sequence=sequence,
                captured_at_ns=now_ns,
                published_at_ns=now_ns,
                payload=None if item == "process" else self.put(item, captures[item]),
                process_values={"force": 0.1} if item == "process" else {},
            )
            topic = self.line.topic("records")
            writer.send(Outgoing(topic=topic, key=str(part).encode(), value=record.to_bytes()))
        writer.flush(BOUND_S)
        writer.close()

    def put(self, item, capture):
        data, media_type, units, shape = encode(item, capture)
        return self.payloads.put(data, media_type=media_type, units=units, shape=shape)

    def await_verdicts(self, count: int) -> list[Verdict]:
        """Every verdict, once there are so many; bounded."""
        clock = SystemClock()
        give_up_s = clock.monotonic_s() + BOUND_S
        while True:
            found = list(read_all(self.log, self.line.topic("verdicts")))
            if len(found) >= count:
                return [Verdict.from_bytes(record.value) for record in found]
            assert clock.monotonic_s() < give_up_s, f"only {len(found)} of {count} verdicts"

    def hololine(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The command, in a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", "from deploy.cli import main; main()", *arguments],
            cwd=self.folder,
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT),
                "COLUMNS": "160",
                "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
                "HOLOLINE_PAYLOADS_URL": f"file://{self.folder / 'payloads'}",
                "HOLOLINE_REGISTRY_FOLDER": str(self.folder / "registry"),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def traces(self) -> tuple[object, ...]:
        """All that a command could have touched."""
        ends = {}
        for entity in ENTITIES:
            topic = self.line.topic(entity)
            for partition in range(self.log.partition_count(topic)):
                reader = self.log.partition_reader(topic, partition)
                ends[topic, partition] = reader.stable_end()
                reader.close()
        member = self.log.member(
            group=f"{self.line.name}.worker", topic=self.line.topic("records"), instance="look"
        )
        committed = [member.committed(partition) for partition in range(2)]
        member.close()
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        with redis.Redis.from_url(self.redis_url) as client:
            keys = {key: client.dump(key) for key in sorted(client.scan_iter("*"))}
        return ends, committed, files, keys


@pytest.fixture(scope="module")
def judged(
    kafka_address, redis_url, ray_address, bundle_path, small_line, make_sample, tmp_path_factory
) -> Judged:
    """Five parts: whole, defective, short, short and late, and one with a broken payload."""
    folder = tmp_path_factory.mktemp("judged")
    line = small_line.model_copy(
        update={"area": f"a{uuid.uuid4().hex[:8]}", "topics": Topics(partitions=2)}
    )
    (folder / "line.yaml").write_bytes(line.to_bytes())
    registry = BundleRegistry(folder / "registry")
    digest = registry.add(bundle_path)
    registry.promote("tile", digest, why="test")
    log = KafkaLog(kafka_address, "test")
    ensure_line_topics(log, line)
    payloads = FsspecPayloadStore(f"file://{folder / 'payloads'}")
    stage = Judged(line, log, folder, kafka_address, redis_url, payloads, digest)
    good, bad = make_sample(900).captures, make_sample(901, defect=True).captures
    with replicas(stage, ray_address) as scorer, working(stage, scorer):
        stage.send("whole", good, "process", "rgb", "scan", "thermal")
        stage.send("defective", bad, "process", "rgb", "scan", "thermal")
        stage.send("short", good, "process", "rgb")
        stage.send("late", good, "process", "rgb", "thermal")
        stage.send("broken", good | {"rgb": good["rgb"][:8, :8]}, "process", "rgb")
        stage.await_verdicts(5)
        stage.send("late", good, "scan")
        stage.send("short", good, "rgb")
        stage.await_verdicts(6)
    return stage


@contextmanager
def replicas(stage: Judged, ray_address: str) -> Iterator[Scorer]:
    """Two scorers on Ray Serve judge, as on a line that is up."""
    import ray
    from ray import serve

    from inference.serve import ServeScorer, deploy_scorer, join_ray

    join_ray(ray_address)
    deploy_scorer(
        line=stage.line,
        registry_root=stage.folder / "registry",
        payloads_url=f"file://{stage.folder / 'payloads'}",
        champions={"tile": stage.digest},
        replicas=2,
    )
    scorer = ServeScorer()
    yield scorer
    scorer.close()
    serve.shutdown()
    ray.shutdown()


@contextmanager
def working(stage: Judged, scorer: Scorer) -> Iterator[None]:
    """A worker runs."""
    worker = Worker(
        line=stage.line,
        log=stage.log,
        stores=lambda p: RedisJoinStore(stage.redis_url, f"{stage.line.name}.p{p}"),
        scorer=scorer,
        clock=SystemClock(),
        instance="w1",
    )
    with beside(worker.run):
        yield


@pytest.mark.parametrize(("part", "revisions"), [("whole", 1), ("late", 2), ("broken", 1)])
def test_each_revision_is_derived_again_byte_for_byte(judged: Judged, part: str, revisions: int):
    """From the log, the payloads and the bundle alone; a broken payload is as broken again."""
    done = judged.hololine("part", "replay", part, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (replayed,) = json.loads(done.stdout)
    outcomes = [(each["revision"], each["status"]) for each in replayed["revisions"]]
    assert outcomes == [(number, "identical") for number in range(1, revisions + 1)]


def test_the_story_says_what_came_what_was_hallucinated_and_why(judged: Judged):
    """All that a person asks of a part, on one page."""
    done = judged.hololine("part", "show", "s/l/late/1")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    for said in ("without scan", "a record came late", "revision 2", judged.digest[:12]):
        assert said in words
    (story,) = json.loads(judged.hololine("part", "show", "short", "--json").stdout)
    assert [each["fate"] for each in story["records"]] == ["counted", "counted", "duplicate"]
    assert story["verdicts"][0]["verdict"]["hallucinated"] == ["scan", "thermal"]


def test_a_tampered_verdict_is_found_and_its_field_named(judged: Judged):
    """Whoever can write to the topic can say anything; nobody can make it follow from the log."""
    found = next(v for v in judged.await_verdicts(6) if v.part.part_id == "whole")
    forged = found.model_copy(update={"p_value": (found.p_value or 0.0) / 2})
    topic = judged.line.topic("verdicts")
    writer = judged.log.writer()
    writer.send(Outgoing(topic=topic, key=str(found.part).encode(), value=forged.to_bytes()))
    writer.flush(BOUND_S)
    writer.close()
    done = judged.hololine("part", "replay", "whole")
    assert done.returncode == 1
    assert "p_value" in done.stdout


def test_a_payload_and_a_bundle_that_are_gone_are_told_with_the_remedy(judged: Judged):
    """Not derivable is not different."""
    verdict = next(v for v in judged.await_verdicts(6) if v.part.part_id == "defective")
    payload = next(i.payload for i in verdict.evidence.items if i.modality == "rgb")
    path = Path(payload.uri.removeprefix("file://"))
    kept = path.read_bytes()
    path.unlink()
    done = judged.hololine("part", "replay", "defective")
    path.write_bytes(kept)
    assert done.returncode == 1
    assert "not derivable" in done.stdout
    assert "restore the payload store" in " ".join(done.stdout.split())
    bundle = judged.folder / "registry" / "bundles" / judged.digest
    bundle.rename(bundle.with_name("away"))
    done = judged.hololine("part", "replay", "defective")
    bundle.with_name("away").rename(bundle)
    assert done.returncode == 1
    assert "put the folder back" in " ".join(done.stdout.split())


def test_an_unknown_part_says_what_was_read(judged: Judged):
    """Topic, partitions, offsets, and how far back."""
    done = judged.hololine("part", "show", "nobody")
    assert done.returncode == 2
    assert judged.line.topic("records") in done.stderr
    assert "goes back to" in done.stderr


def test_what_another_line_file_would_have_made_of_it_touches_nothing(judged: Judged):
    """A rate that can be promised frees what was held; logs, Redis and files stay as they were."""
    tile = judged.line.products["tile"].model_copy(update={"false_reject_rate": 0.4})
    other = judged.line.model_copy(update={"products": {**judged.line.products, "tile": tile}})
    new = judged.folder / "new.yaml"
    new.write_bytes(other.to_bytes())
    now = datetime.now(UTC)
    before = judged.traces()
    done = judged.hololine(
        *("part", "replay", "--from", (now - timedelta(hours=1)).isoformat()),
        *("--to", (now + timedelta(hours=1)).isoformat(), "--line-file", str(new), "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert judged.traces() == before
    found = json.loads(done.stdout)
    assert found["parts"] == 5
    assert found["was"]["dispositions"] == {"hold": 4, "undecidable": 1}
    assert found["would"]["dispositions"].get("hold", 0) == 0
    assert found["was"]["revisions"] == found["would"]["revisions"]


def test_half_of_the_options_are_refused_by_name(judged: Judged):
    """What is missing is said."""
    done = judged.hololine("part", "replay", "--from", "2026-11-26T06:00")
    assert done.returncode == 2
    assert "--line-file" in done.stderr
