"""The dispatcher: every evidence gets its verdict, whatever happens to the scorers."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError

import pytest

from connectors import metrics
from connectors.errors import Unavailable
from connectors.memory_scorer import HashScorer
from connectors.messages import (
    Closed,
    Disposition,
    Evidence,
    EvidenceItem,
    PartKey,
    ProductPolicy,
    Verdict,
    verdict_id_of,
)
from connectors.ports import SealedEvidence
from inference.dispatch import BATCH_MAX, POISON_REASON, Ask, Dispatcher, ScorerDied

POLICY = ProductPolicy(expected=("camera",), deadline_ms=1000, false_reject_rate=0.02)
WAIT_S = 30.0


def evidence(
    part_id: str, *, product: str = "can", modalities: Sequence[str] = (), revision: int = 1
) -> Evidence:
    items = tuple(
        EvidenceItem(
            event_id="e",
            offset=1,
            station="s",
            modality=name,
            capture_sequence=1,
            captured_at_ns=1,
            logged_at_ms=1,
        )
        for name in modalities
    )
    return Evidence(
        part=PartKey(site="s", line="l", part_id=part_id),
        revision=revision,
        product=product,
        closed=Closed.COMPLETE,
        opened_offset=1,
        opened_at_ms=1,
        closed_offset=2,
        closed_at_ms=2,
        items=items,
        policy_digest="0" * 64,
        policy=POLICY,
    )


class Replica:
    """Answers as a replica would, after first doing what each try is told to."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.batches: list[list[Evidence]] = []

    async def ask(self, raw: list[bytes]) -> list[bytes]:
        batch = [Evidence.from_bytes(each) for each in raw]
        self.batches.append(batch)
        if self.faults:
            raise self.faults.pop(0)
        if any(each.part.part_id == "killer" for each in batch):
            raise ScorerDied("killed")
        return [HashScorer().verdict(each).to_bytes() for each in batch]


@pytest.fixture
def start() -> Iterator[Callable[..., Dispatcher]]:
    made: list[Dispatcher] = []

    def make(ask: Ask, *, deadline_s: float = 10.0) -> Dispatcher:
        made.append(Dispatcher(ask, deadline_s=deadline_s, in_flight=2, pause_s=0.001))
        return made[-1]

    yield make
    for each in made:
        each.close()


def sealed(batch: Sequence[Evidence]) -> list[SealedEvidence]:
    return [SealedEvidence.of(each) for each in batch]


def expected(batch: Sequence[Evidence]) -> list[bytes]:
    return [HashScorer().verdict(each).to_bytes() for each in batch]


def test_verdicts_come_in_the_order_of_their_evidence(start) -> None:
    """The worker pairs verdicts with parts by position."""
    replica = Replica()
    batch = [
        evidence(
            f"p{i}", product=("can", "sheet")[i % 2], modalities=(("a",), ("a", "b"))[i % 3 > 0]
        )
        for i in range(70)
    ]
    assert start(replica.ask).score(sealed(batch)).result(WAIT_S) == expected(batch)


def test_a_try_holds_one_product_and_one_subset_and_few_parts(start) -> None:
    """One set of banks serves a whole micro-batch, and one death concerns few parts."""
    replica = Replica()
    batch = [evidence(f"p{i}", product=("can", "sheet")[i % 2]) for i in range(100)]
    batch += [evidence(f"q{i}", modalities=("a",)) for i in range(3)]
    start(replica.ask).score(sealed(batch)).result(WAIT_S)
    for asked in replica.batches:
        assert len({(each.product, each.modalities) for each in asked}) == 1
        assert len(asked) <= BATCH_MAX


@pytest.mark.parametrize("fault", [Unavailable("away"), TimeoutError(), ScorerDied("gone")])
def test_a_scorer_that_is_away_is_asked_again(start, fault) -> None:
    """Scoring is pure: trouble on the way costs time, never a verdict."""
    replica = Replica(fault, fault)
    batch = [evidence("p1")]
    assert start(replica.ask).score(sealed(batch)).result(WAIT_S) == expected(batch)
    assert len(replica.batches) == 3


def test_a_try_that_never_ends_is_given_up_at_its_deadline(start) -> None:
    """A scorer that hangs is not waited for for ever."""
    replica = Replica()
    hangs = [True, False]

    async def ask(raw: list[bytes]) -> list[bytes]:
        if hangs.pop(0):
            await asyncio.Event().wait()
        return await replica.ask(raw)

    batch = [evidence("p1")]
    assert start(ask, deadline_s=0.05).score(sealed(batch)).result(WAIT_S) == expected(batch)


def test_asking_never_blocks_and_what_is_unanswered_is_shown(start) -> None:
    """A session goes on probing and publishing while no scorer answers; each batch is answered."""
    replica, release = Replica(), threading.Event()

    async def ask(raw: list[bytes]) -> list[bytes]:
        await asyncio.to_thread(release.wait, WAIT_S)
        return await replica.ask(raw)

    dispatcher = start(ask, deadline_s=WAIT_S)
    batches = [[evidence(f"p{i}")] for i in range(1000)]
    answers = [dispatcher.score(sealed(batch)) for batch in batches]
    assert metrics.REGISTRY.get_sample_value("hololine_scoring_batches") >= len(batches)
    release.set()
    assert [each.result(WAIT_S) for each in answers] == [expected(batch) for batch in batches]


def test_only_the_evidence_that_kills_scorers_is_undecidable(start) -> None:
    """Its neighbours in the batch are judged as ever."""
    replica = Replica()
    batch = [evidence(f"p{i}") for i in range(5)] + [evidence("killer", revision=2)]
    *others, last = start(replica.ask).score(sealed(batch)).result(WAIT_S)
    assert others == expected(batch[:-1])
    poisoned = Verdict.from_bytes(last)
    assert poisoned.disposition is Disposition.UNDECIDABLE
    assert poisoned.reasons == (POISON_REASON,)
    assert not poisoned.promise_valid
    assert poisoned.false_reject_rate == 0.02
    assert poisoned.evidence == batch[-1]
    assert poisoned.supersedes == verdict_id_of(batch[-1].part, 1)


def test_a_poison_needs_three_deaths_alone(start) -> None:
    """A death by other causes, twice even, condemns no part."""
    replica = Replica()
    batch = [evidence("p1"), evidence("killer")]
    start(replica.ask).score(sealed(batch)).result(WAIT_S)
    alone = [asked for asked in replica.batches if [e.part.part_id for e in asked] == ["killer"]]
    assert len(alone) == 3


def test_a_bug_fails_the_future(start) -> None:
    """What no retry can mend is not hidden by retrying."""
    replica = Replica(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        start(replica.ask).score(sealed([evidence("p1")])).result(WAIT_S)


def test_closing_cancels_what_is_unanswered(start) -> None:
    """A worker that stops is not held by a scorer that is away."""
    asked = threading.Event()

    async def ask(_: list[bytes]) -> list[bytes]:
        asked.set()
        await asyncio.Event().wait()
        return []

    dispatcher = start(ask)
    answer = dispatcher.score(sealed([evidence("p1")]))
    assert asked.wait(WAIT_S)
    dispatcher.close()
    with pytest.raises(CancelledError):
        answer.result(WAIT_S)
