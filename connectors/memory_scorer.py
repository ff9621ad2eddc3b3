"""In-memory twin of the `Scorer` port: a verdict that is a hash of evidence and model, at once."""

from collections.abc import Sequence
from concurrent.futures import Future
from hashlib import sha256

from connectors.messages import Disposition, Evidence, Verdict, verdict_id_of
from connectors.ports import SealedEvidence


class HashScorer:
    """See `ports.Scorer`; the score is a hash, so that wrong evidence or another model shows.

    Args:
        salt: Stands for the model: another salt answers otherwise, as another model would.
    """

    def __init__(self, salt: str = "") -> None:
        self.salt = salt

    def score(self, batch: Sequence[SealedEvidence]) -> "Future[list[bytes]]":
        """See `ports.Scorer.score`."""
        answer: Future[list[bytes]] = Future()
        answer.set_result(
            [self.verdict(Evidence.from_bytes(sealed.raw)).to_bytes() for sealed in batch]
        )
        return answer

    def verdict(self, evidence: Evidence) -> Verdict:
        """The verdict on one evidence; without any modality it is undecidable."""
        real = evidence.modalities
        digest = evidence.digest
        hashed = int(sha256((digest + self.salt).encode()).hexdigest()[:8], 16) / 16**8
        before = evidence.revision - 1
        return Verdict(
            verdict_id=verdict_id_of(evidence.part, evidence.revision),
            part=evidence.part,
            revision=evidence.revision,
            product=evidence.product,
            disposition=Disposition.ACCEPT if real else Disposition.UNDECIDABLE,
            reasons=tuple(f"missing:{name}" for name in evidence.missing),
            p_value=hashed if real else None,
            false_reject_rate=evidence.policy.false_reject_rate,
            promise_valid=bool(real),
            score=hashed if real else None,
            real=real,
            model_digest=self.salt or None,
            evidence_digest=digest,
            supersedes=verdict_id_of(evidence.part, before) if before else None,
            evidence=evidence,
        )
