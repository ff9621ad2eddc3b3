"""What an MES relies on: each verdict once, revisions in order, no word lost to a bad record."""

from connectors.clock import ManualClock
from connectors.memory import MemoryLog
from connectors.memory_scorer import HashScorer
from connectors.messages import Closed, Disposition, Evidence, PartKey, ProductPolicy, Verdict
from connectors.ports import Outgoing, TopicSpec
from deploy.verdict_feed import VerdictFeed, summary

TOPIC = "s.a.l.verdicts.v1"


def verdict(part: str, revision: int) -> Verdict:
    evidence = Evidence(
        part=PartKey(site="s", line="l", part_id=part),
        revision=revision,
        product="can",
        closed=Closed.DEADLINE,
        opened_offset=0,
        opened_at_ms=1,
        closed_offset=1,
        closed_at_ms=2,
        items=(),
        policy_digest="0" * 64,
        policy=ProductPolicy(expected=("rgb",), deadline_ms=1000),
    )
    return HashScorer().verdict(evidence)


def feed_of(*values: bytes) -> VerdictFeed:
    log = MemoryLog(ManualClock())
    log.ensure_topics([TopicSpec(name=TOPIC, partitions=1, retention_ms=60_000)])
    writer = log.writer()
    for value in values:
        writer.send(Outgoing(topic=TOPIC, key=b"k", value=value))
    return VerdictFeed(log.topic_reader(TOPIC, start={}))


def test_a_verdict_that_comes_twice_is_given_once():
    """The id is the same wherever the verdict was computed, so a consumer needs nothing else."""
    one, two = verdict("P1", 1), verdict("P1", 2)
    feed = feed_of(one.to_bytes(), two.to_bytes(), one.to_bytes())
    assert feed.poll(timeout_s=0.1) == [one, two]
    assert feed.duplicates == 1


def test_a_record_that_is_no_verdict_does_not_stop_the_feed():
    """It is counted; the verdicts after it come."""
    feed = feed_of(b"\xff", verdict("P1", 1).to_bytes())
    assert len(feed.poll(timeout_s=0.1)) == 1
    assert feed.unreadable == 1


def test_a_later_revision_says_what_it_replaces():
    """A person sees that the part was told otherwise before."""
    feed = feed_of(verdict("P1", 1).to_bytes(), verdict("P1", 2).to_bytes())
    _, later = feed.poll(timeout_s=0.1)
    before = feed.superseded(later)
    assert before is Disposition.UNDECIDABLE
    assert "replaces undecidable" in summary(later, before=before)


def test_a_part_id_cannot_play_with_the_terminal():
    """Part ids are any printable characters: markup in them is shown, not obeyed."""
    assert r"\[bold]" in summary(verdict("[bold]x", 1), before=None)
