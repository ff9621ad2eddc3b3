"""Why does hallucination help one main modality more than the other? One factor changed at a time.

Of every setting the gain over the main modality alone is taken for both directions. The asymmetry
is the gain of the first main minus that of the second. A factor explains some of it if changing it
brings the asymmetry towards zero, beyond what chance among classes and images leaves open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from connectors.errors import Poison
from training.bootstrap import Interval
from training.cmdiad.metrics import Floats
from training.cmdiad.resampling import MEAN, Resampled, interval_of


class Effect(StrEnum):
    """What a changed factor does to the asymmetry."""

    BASELINE = "baseline"
    NARROWS = "narrows the asymmetry"
    REVERSES = "reverses the asymmetry"
    WIDENS = "widens the asymmetry"
    NONE = "no change shown"
    NOTHING = "no asymmetry to explain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What may be behind the asymmetry."""

    bank_side: int
    """Patches along one side of the real image's bank; the hallucinated one has 56."""
    weight: Literal["1.0", "0.1", "equal"]
    """What hallucination counts beside the main modality; ``equal``: after scaling both."""
    final_gelu: bool
    """Whether the head ends in a GELU, which cuts off what is below -0.17."""
    path_noise: bool
    """Whether clouds' patches carry noise that stands in for the branches that the authors' runs
    drop at random: as large, but on each patch by itself."""

    @property
    def words(self) -> str:
        """The setting in a line."""
        gelu, noise = ("on" if on else "off" for on in (self.final_gelu, self.path_noise))
        return f"bank {self.bank_side}, weight {self.weight}, final GELU {gelu}, noise {noise}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Names of the methods of one main modality."""

    fused: str
    alone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting, tried for both main modalities in the order of the ablation's `mains`."""

    setting: Setting
    arms: tuple[Arm, Arm]


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """One main modality under one setting."""

    gain: Interval
    """Over the main modality alone."""
    change: Interval | None
    """Of that gain from the baseline; None: this is it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRow:
    """One setting."""

    setting: Setting
    directions: tuple[Direction, Direction]
    """In the order of `Ablation.mains`."""
    asymmetry: Interval
    """Gain of the first main modality minus that of the second."""
    change: Interval | None
    """Of the asymmetry from the baseline; None: this is it."""
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """Every setting beside the baseline, which is the first row."""

    mains: tuple[str, str]
    metric: str
    rows: tuple[AblationRow, ...]

    @property
    def words(self) -> str:
        """What it comes to, in a sentence."""
        found = self.rows[0].asymmetry
        if found.low <= 0 <= found.high:
            return "At the baseline no asymmetry is shown, so there is none to explain."
        more = self.mains[0] if found.value > 0 else self.mains[1]
        less = [r.setting.words for r in self.rows if r.effect in {Effect.NARROWS, Effect.REVERSES}]
        why = "; ".join(less) or "none of the factors tried"
        return f"Hallucination helps {more} as main more; the asymmetry is narrowed by: {why}."

    def markdown(self) -> str:
        """The table for a page of Markdown."""
        head = ("setting", *(f"gain, {main} main" for main in self.mains), "asymmetry", "change")
        lines = [f"| {' | '.join(head)} | finding |", "|---" * (len(head) + 1) + "|"]
        for row in self.rows:
            cells = [row.setting.words, *(signed(each.gain) for each in row.directions)]
            cells += [signed(row.asymmetry), signed(row.change), row.effect]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


def ablate(
    resampled: Resampled, trials: Sequence[Trial], *, mains: tuple[str, str], metric: str
) -> Ablation:
    """Every trial beside the first, on the mean over classes.

    Args:
        resampled: Every method of the trials.
        trials: The baseline first; any further one changes what is asked about.
        mains: Names of the two main modalities.
        metric: By which figure.

    Raises:
        Poison: There is no trial, or one of its methods was not scored.
    """
    if not trials:
        raise Poison("trials", "a baseline is needed")
    measured = [_Measured.of(resampled, trial, metric=metric) for trial in trials]
    return Ablation(
        mains=mains,
        metric=metric,
        rows=tuple(
            _row(trial.setting, each, base=measured[0])
            for trial, each in zip(trials, measured, strict=True)
        ),
    )


def signed(interval: Interval | None) -> str:
    """A difference with its interval; nothing for the baseline itself."""
    if interval is None:
        return ""
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


@dataclass(frozen=True, slots=True)
class _Difference:
    value: float
    drawn: Floats

    def __sub__(self, other: "_Difference") -> "_Difference":
        return _Difference(self.value - other.value, self.drawn - other.drawn)

    @property
    def interval(self) -> Interval:
        return interval_of(self.value, self.drawn)


@dataclass(frozen=True, slots=True)
class _Measured:
    gains: tuple[_Difference, _Difference]

    @classmethod
    def of(cls, resampled: Resampled, trial: Trial, *, metric: str) -> "_Measured":
        def figure(method: str) -> _Difference:
            drawn = resampled.drawn(method, metric, MEAN)
            return _Difference(resampled.value(method, metric, MEAN), drawn)

        first, second = trial.arms
        return cls(
            (
                figure(first.fused) - figure(first.alone),
                figure(second.fused) - figure(second.alone),
            )
        )

    @property
    def asymmetry(self) -> _Difference:
        return self.gains[0] - self.gains[1]


def _row(setting: Setting, each: _Measured, *, base: _Measured) -> AblationRow:
    is_base = each is base
    first, second = (
        Direction(gain=gain.interval, change=None if is_base else (gain - before).interval)
        for gain, before in zip(each.gains, base.gains, strict=True)
    )
    change = None if is_base else (each.asymmetry - base.asymmetry).interval
    return AblationRow(
        setting=setting,
        directions=(first, second),
        asymmetry=each.asymmetry.interval,
        change=change,
        effect=_effect(base.asymmetry.interval, each.asymmetry.interval, change),
    )


def _effect(base: Interval, now: Interval, change: Interval | None) -> Effect:
    if change is None:
        return Effect.BASELINE
    if base.low <= 0 <= base.high:
        return Effect.NOTHING
    if change.low <= 0 <= change.high:
        return Effect.NONE
    if change.value * base.value > 0:
        return Effect.WIDENS
    reversed_ = now.high < 0 if base.value > 0 else now.low > 0
    return Effect.REVERSES if reversed_ else Effect.NARROWS
