"""A part's verdicts derived again and held against what was published, revision by revision."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from connectors.errors import Poison
from connectors.messages import Evidence, Verdict
from deploy.replay.compare import first_difference
from deploy.replay.story import Said, Story
from inference.dispatch import POISON_REASON, poisoned

_UNREADABLE: Final = "payload_unreadable:"
_NUMBERS: Final = ("p_value", "score", "scores", "regions", "views")


class Judge(Protocol):
    """Judges evidence again."""

    def judge(self, evidence: Evidence, digest: str | None) -> Verdict:
        """The verdict of the bundle with this digest; None: as when the product had no bundle.

        Raises:
            Poison: The bundle is not there any more; says where it was looked for.
        """
        ...

    def candidates(self, verdict: Verdict) -> list[str | None]:
        """Digests of what may have judged: the one that the verdict names, else all of then."""
        ...

    def champion(self, product: str) -> str | None:
        """What judges the product now."""
        ...


class Status(StrEnum):
    """How a revision came out."""

    IDENTICAL = "identical"
    DIFFERENT = "different"
    NOT_DERIVABLE = "not derivable"
    NOT_PUBLISHED = "not published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One revision of a part, derived again."""

    revision: int
    offset: int | None
    """Of the verdict in its partition of verdicts."""
    status: Status
    model_digest: str | None = None
    field: str | None = None
    published: str | None = None
    derived: str | None = None
    remark: str | None = None
    """What follows: the remedy, or what could not be checked."""


def derive_again(story: Story, judge: Judge) -> list[Revision]:
    """Every revision of the part, published or derived, in order.

    Raises:
        Unavailable: The payload store cannot be reached.
    """
    if story.life is None:
        return [_underivable(said, story) for said in story.said]
    evidences = {(each.opened_offset, each.revision): each for each in story.life.evidences}
    outcomes = []
    told = set()
    for said in story.said:
        wanted = (said.verdict.evidence.opened_offset, said.verdict.revision)
        told.add(wanted)
        evidence = evidences.get(wanted)
        outcomes.append(_unfounded(said) if evidence is None else _again(said, evidence, judge))
    outcomes += [
        Revision(
            revision=each.revision,
            offset=None,
            status=Status.NOT_PUBLISHED,
            remark="the log gives this revision; is the line up, and are its scorers "
            "(`hololine status`)?",
        )
        for place, each in evidences.items()
        if place not in told
    ]
    return outcomes


def _underivable(said: Said, story: Story) -> Revision:
    why = story.untold or Poison("records", "the log holds none of the part's records")
    return Revision(
        revision=said.verdict.revision,
        offset=said.offset,
        status=Status.NOT_DERIVABLE,
        model_digest=said.verdict.model_digest,
        field=why.field,
        remark=why.reason,
    )


def _unfounded(said: Said) -> Revision:
    return Revision(
        revision=said.verdict.revision,
        offset=said.offset,
        status=Status.DIFFERENT,
        model_digest=said.verdict.model_digest,
        field="revision",
        published=f"{said.verdict.revision}, opened at {said.verdict.evidence.opened_offset}",
        derived="nothing",
        remark="the records give no such revision: who may write to the line's topics?",
    )


def _again(said: Said, evidence: Evidence, judge: Judge) -> Revision:
    published = said.verdict
    if POISON_REASON in published.reasons:
        remark = "that three scorers died of it cannot be tried again"
        return _compared(said, poisoned(evidence), remark=remark)
    closest: Revision | None = None
    for digest in judge.candidates(published):
        try:
            derived = judge.judge(evidence, digest)
        except Poison as error:
            outcome = _missing(said, error.field, f"{error.reason}: put the folder back there")
        else:
            outcome = _judged(said, derived)
        if outcome.status is Status.IDENTICAL:
            return outcome
        closest = closest or outcome
    assert closest is not None, "there is a candidate always"
    return closest


def _judged(said: Said, derived: Verdict) -> Revision:
    lost = [r for r in derived.reasons if r.startswith(_UNREADABLE)]
    if lost and not any(r.startswith(_UNREADABLE) for r in said.verdict.reasons):
        reason = f"{lost[0].removeprefix(_UNREADABLE)}: restore the payload store to replay it"
        return _missing(said, "payload", reason)
    return _compared(said, derived)


def _missing(said: Said, field: str, reason: str) -> Revision:
    return Revision(
        revision=said.verdict.revision,
        offset=said.offset,
        status=Status.NOT_DERIVABLE,
        model_digest=said.verdict.model_digest,
        field=field,
        remark=reason,
    )


def _compared(said: Said, derived: Verdict, *, remark: str | None = None) -> Revision:
    difference = first_difference(said.raw, derived.to_bytes())
    field, published, ours = difference or (None, None, None)
    if field is not None and field.split(".")[0] in _NUMBERS:
        remark = (
            "the evidence is the same: the verdict was changed after judging, or the scorers' "
            "processor or torch rounds otherwise (replay on a machine like theirs)"
        )
    return Revision(
        revision=said.verdict.revision,
        offset=said.offset,
        status=Status.IDENTICAL if field is None else Status.DIFFERENT,
        model_digest=said.verdict.model_digest,
        field=field,
        published=published,
        derived=ours,
        remark=remark,
    )
