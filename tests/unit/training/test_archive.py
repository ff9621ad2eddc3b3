"""The archive: what was judged and found comes in once, and comes out joined."""

from collections.abc import Sequence

import pytest

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
from connectors.ports import LogRecord
from training.archive import Archive
from training.tables import CharacterisedPart

POLICY = ProductPolicy(expected=("camera", "scanner", "process"), deadline_ms=1000)
LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={
        "camera": Modality(kind="image", units="1"),
        "scanner": Modality(kind="height-map", units="mm"),
    },
    stations={
        "one": Station(publishes=("camera",)),
        "two": Station(publishes=("scanner", "process")),
    },
    products={"can": POLICY},
)


def ref(name: str) -> PayloadRef:
    return PayloadRef(
        uri=f"file:///{name}",
        sha256=name.encode().hex().zfill(64)[-64:],
        size_bytes=1,
        media_type="image/png",
    )


def part_key(number: int, pass_number: int = 1) -> PartKey:
    return PartKey(site="s", line="l", part_id=f"p{number}", pass_number=pass_number)


def verdict(
    number: int,
    *,
    modalities: Sequence[str] = ("camera", "scanner"),
    revision: int = 1,
    pass_number: int = 1,
    alias: str | None = None,
) -> Verdict:
    part = part_key(number, pass_number)
    items = tuple(
        EvidenceItem(
            event_id="e",
            offset=1,
            station="one",
            modality=name,
            capture_sequence=1,
            captured_at_ns=1,
            logged_at_ms=1,
            payload=ref(f"{part.part_id}{name}{revision}"),
        )
        for name in modalities
    )
    evidence = Evidence(
        part=part,
        revision=revision,
        product="can",
        lot="lot-1",
        closed=Closed.COMPLETE,
        opened_offset=1,
        opened_at_ms=1,
        closed_offset=2,
        closed_at_ms=2,
        items=items,
        policy_digest="0" * 64,
        policy=POLICY,
        alias=alias,
    )
    return Verdict(
        verdict_id=verdict_id_of(part, revision),
        part=part,
        revision=revision,
        product="can",
        disposition=Disposition.ACCEPT,
        false_reject_rate=0.01,
        promise_valid=True,
        p_value=0.5,
        score=1.0,
        real=evidence.modalities,
        evidence_digest=evidence.digest,
        evidence=evidence,
    )


def result(
    number: int,
    *,
    finding: str = "good",
    pass_number: int = 1,
    at_ns: int = 1,
    policy: str = "random",
) -> NearlineResult:
    return NearlineResult.model_validate(
        {
            "part": part_key(number, pass_number),
            "product": "can",
            "method": "CT",
            "finding": finding,
            "selection": Selection(policy=policy, probability=0.2),
            "examined_at_ns": at_ns,
        }
    )


def logged(message: Verdict | NearlineResult, offset: int, partition: int = 0) -> LogRecord:
    entity = "verdicts" if isinstance(message, Verdict) else "nearline"
    return LogRecord(
        topic=LINE.topic(entity),
        partition=partition,
        offset=offset,
        timestamp_ms=5,
        key=None,
        value=message.to_bytes(),
    )


def put(archive: Archive, messages: Sequence[Verdict | NearlineResult], first: int = 0) -> int:
    found = [(logged(m, first + i), m) for i, m in enumerate(messages)]
    return archive.add(found, {0: first + len(messages)})


@pytest.fixture
def archive(tmp_path) -> Archive:
    return Archive(str(tmp_path / "archive"))


def test_a_part_is_fully_characterised_with_every_capture_and_a_finding(archive) -> None:
    """Only parts that each expected station saw and the laboratory examined are learned from."""
    put(archive, [verdict(1), verdict(2, modalities=("camera",)), verdict(3)])
    put(archive, [result(1), result(2), result(9)])
    (found,) = archive.fully_characterised("can")
    assert found.part == str(part_key(1))
    assert found.lot == "lot-1"
    assert found.finding == "good"
    assert found.captures == {"camera": ref("p1camera1"), "scanner": ref("p1scanner1")}
    assert archive.fully_characterised("other") == []


def test_the_latest_revision_and_the_latest_finding_count(archive) -> None:
    """A late capture completes a part, and a second examination overrules the first."""
    put(archive, [verdict(1, revision=2), verdict(1, modalities=("camera",), revision=1)])
    put(archive, [result(1, finding="defective", at_ns=20), result(1, finding="good", at_ns=10)])
    (found,) = archive.fully_characterised("can")
    assert found.finding == "defective"
    assert found.captures["camera"] == ref("p1camera2")


def test_a_second_pass_is_another_part(archive) -> None:
    """What the laboratory found before rework says nothing about the part after it."""
    put(archive, [verdict(1), verdict(1, pass_number=2)])
    put(archive, [result(1, pass_number=2)])
    assert [each.part for each in archive.fully_characterised("can")] == [str(part_key(1, 2))]


def test_a_finding_under_the_real_id_belongs_to_the_tracked_part(archive) -> None:
    """After a no-read the laboratory knows only the id that the alias named."""
    put(archive, [verdict(1, alias="p77")])
    put(archive, [result(77, finding="defective")])
    (found,) = archive.fully_characterised("can")
    assert (found.part, found.finding) == (str(part_key(1)), "defective")


def test_a_row_is_archived_once_whatever_is_sent_again(tmp_path) -> None:
    """After a crash the archiver may see records again; a new process counts none twice."""
    first = Archive(str(tmp_path))
    assert put(first, [verdict(1), verdict(2)]) == 2
    second = Archive(str(tmp_path))
    assert second.positions(LINE.topic("verdicts"), range(2)) == {0: 2}
    assert put(second, [verdict(1), verdict(2), verdict(3)]) == 1
    assert second.counts()["judged"] == 3


def test_partitions_resume_each_where_it_ended(archive) -> None:
    """A position belongs to one partition of one topic."""
    archive.add([(logged(verdict(1), 7, partition=1), verdict(1))], {0: 0, 1: 9})
    assert archive.positions(LINE.topic("verdicts"), range(3)) == {0: 0, 1: 9}
    assert archive.positions(LINE.topic("nearline"), range(3)) == {}


def test_positions_and_rows_survive_compaction(archive) -> None:
    """Merging files forgets neither rows nor how far the log was read."""
    for number in range(5):
        put(archive, [verdict(number)], first=number)
    archive.compact()
    assert archive.counts()["judged"] == 5
    assert archive.positions(LINE.topic("verdicts"), range(1)) == {0: 5}


def test_commissioning_parts_count_once_and_as_good(archive) -> None:
    """The parts of the first fit stand in until the line has its own."""
    part = CharacterisedPart(
        part="s/l/c1/1",
        product="can",
        lot="c-lot",
        finding="good",
        defect_kind=None,
        captures={"camera": ref("c"), "scanner": ref("d")},
    )
    assert archive.add_commissioning([part]) == 1
    assert archive.add_commissioning([part]) == 0
    assert archive.fully_characterised("can") == [part]


@pytest.mark.parametrize(
    ("policies", "at_random"),
    [
        (("random",), True),
        (("all",), True),
        (("suspicion",), False),
        (("every-shiny-one",), False),
        (("random", "suspicion"), True),
        (("suspicion", "random"), True),
    ],
)
def test_a_part_says_whether_it_was_chosen_at_random(archive, policies, at_random) -> None:
    """One blind choice is enough, and a policy that nobody knows is not trusted to be blind."""
    put(archive, [verdict(1)])
    put(archive, [result(1, at_ns=at, policy=name) for at, name in enumerate(policies, start=1)])
    (found,) = archive.fully_characterised("can")
    assert found.at_random is at_random


def test_good_parts_that_came_short_are_found_as_they_were_first_judged(archive) -> None:
    """Complete, defective, suspected and unexamined ones are not among them."""
    short = {"modalities": ("camera",)}
    put(archive, [verdict(number, **short) for number in range(5)])
    put(archive, [verdict(4, revision=2), verdict(5), verdict(6, modalities=())], first=5)
    findings = [result(1, finding="defective"), result(2, policy="suspicion"), result(3)]
    put(archive, [*findings, result(4), result(5), result(6)])
    found = archive.naturally_missing("can")
    assert [part.part for part in found] == [str(part_key(3)), str(part_key(4))]
    assert [part.captures for part in found] == [{"camera": ref(f"p{n}camera1")} for n in (3, 4)]
    assert [part.part for part in archive.fully_characterised("can")] == [
        str(part_key(4)),
        str(part_key(5)),
    ]


def test_a_short_part_is_found_by_the_id_that_a_later_alias_gave_it(archive) -> None:
    """The first revision did not know it, the latest does."""
    put(archive, [verdict(1, modalities=("camera",)), verdict(1, revision=2, alias="p77")])
    put(archive, [result(77)])
    assert [part.part for part in archive.naturally_missing("can")] == [str(part_key(1))]
