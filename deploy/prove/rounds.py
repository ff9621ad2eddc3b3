"""What one round of the proof is: what was asked, what was done to the line, and what it showed."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How large a proof is asked for; the same seed plans the same rounds."""

    seed: int
    parts: int
    faults: int
    brokers: Literal[1, 3]
    quick: bool
    soak_minutes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a round has come; `missing`: verdicts and letters that are still awaited."""

    parts: int
    faults: int
    doing: str
    missing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault as it was done; `recovered_s` is how long until work of its kind went on."""

    kind: str
    target: str
    at_s: float
    recovered_s: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A kind of fault that was not done, and why."""

    kind: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One line's life from its first record until all was answered, and what it went through.

    `at_s` of faults and times of `rss` count from `began_at_ms`, wall time in ms since the epoch.
    """

    number: int
    seed: int
    name: str
    line: dict[str, Any]
    first_policy: str
    scorer: Literal["hash", "lite"]
    models: tuple[str, ...]
    guarded: bool
    brokers: int
    own_servers: bool
    parts: int
    records: int
    began_at_ms: int
    seconds: float
    drained: bool
    faults: tuple[Fault, ...]
    skipped: tuple[Skipped, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    rss: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        given = held | {
            "models": tuple(held["models"]),
            "faults": tuple(Fault(**each) for each in held["faults"]),
            "skipped": tuple(Skipped(**each) for each in held["skipped"]),
            "rss": {
                name: [(time_s, mib) for time_s, mib in samples]
                for name, samples in held["rss"].items()
            },
        }
        return cls(**given)
