"""What a transaction that was cut off left in the log is counted, and judged by nobody."""

import uuid
from contextlib import closing

import pytest
from kafka import KafkaProducer

from connectors.kafka import KafkaLog
from connectors.line import Line, Modality, Station, Topics
from connectors.messages import ProductPolicy
from deploy.prove.reading import check_round
from deploy.prove.rounds import Round
from deploy.wiring import ensure_line_topics

pytestmark = pytest.mark.integration


def test_an_aborted_verdict_is_seen_raw_and_is_no_finding(kafka_address: str) -> None:
    """A `read_committed` reader never gets it, so it breaks nothing; the page tells how many."""
    line = Line(
        site="s",
        area="a",
        line=f"l{uuid.uuid4().hex[:8]}",
        modalities={"rgb": Modality(kind="image", units="1")},
        stations={"cam": Station(publishes=("rgb",))},
        products={"can": ProductPolicy(expected=("rgb",), deadline_ms=1_000)},
        topics=Topics(partitions=1),
    )
    log = KafkaLog(kafka_address)
    ensure_line_topics(log, line)
    with closing(
        KafkaProducer(
            bootstrap_servers=kafka_address, transactional_id=f"{line.name}.p0", acks="all"
        )
    ) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(line.topic("verdicts"), key=b"k", value=b"cut off").get(timeout=10)
        producer.abort_transaction()
    done = Round(
        number=1,
        seed=1,
        name="hash-faults",
        line=line.model_dump(mode="json", by_alias=True),
        first_policy=line.policy().digest,
        scorer="hash",
        models=(),
        guarded=True,
        brokers=1,
        own_servers=True,
        parts=0,
        records=0,
        began_at_ms=0,
        seconds=1.0,
        drained=True,
        faults=(),
    )
    found = check_round(log, done).findings
    assert found.violations == 0
    assert (found.seen["verdicts_raw"], found.seen["verdicts"]) == (1, 0)
