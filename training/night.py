"""A night: from the archive to challengers, each held against its champion on held-out parts.

Parts with every expected capture and a finding become samples, the stages of the fit run as Ray
tasks, and the new bundle is compared on the gate role, which no bundle of the ancestry has learned
from. The champion stays unless a promotion is asked for.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import ray

from connectors.errors import Poison, Unavailable
from connectors.line import Line
from connectors.ports import PayloadStore
from inference.bundle import Bundle, Manifest
from inference.registry import BundleRegistry
from inference.serve import join_ray, swap, wanted_replicas
from training.archive import Archive
from training.datasets import PartSample, Role, by_role, role_of, scored_modalities
from training.evaluate import Report, SubsetReport, evaluate
from training.fit import known_weights
from training.naturally_missing import by_subset, hold_against_masked, natural_score
from training.tables import CharacterisedPart
from training.tasks import fit_by_tasks, run_tasks, stored_samples

if TYPE_CHECKING:
    from rich.table import Table

Progress = Callable[[str, str, float], None]
"""Told product, stage and how much of it is done, 0 to 1."""

BROKEN_SHOWN: Final = 5
CLEARLY: Final = 0.05
"""By how much a share must be worse before a challenger is called worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductNight:
    """What one night came to for one product."""

    product: str
    outcome: Literal["refused", "challenger", "promoted"]
    reason: str
    parts: dict[str, int]
    """Good parts per role, and ``defective`` ones, with every capture readable."""
    unreadable: int
    """Parts left out because a capture could not be read."""
    unreadable_why: tuple[str, ...]
    """What was wrong with the first `BROKEN_SHOWN` of them."""
    not_random: int
    """Good parts left out of the calibration, as they were not chosen at random."""
    champion: str | None
    challenger: str | None = None
    champion_report: Report | None = None
    challenger_report: Report | None = None
    """On the same held-out parts; None when no such part is labelled and complete."""
    masking: dict[str, str] = field(default_factory=dict)
    """Per subset of the challenger, whether parts that really lack the others are like masked ones;
    empty when the archive has no such part."""
    withdrawn: tuple[str, ...] = ()
    """The subsets of which the challenger therefore promises nothing."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage; ``total`` is all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightReport:
    """What a night came to."""

    products: tuple[ProductNight, ...]
    seconds: float
    swap_s: float | None
    """How long the running line took to swap; None when nothing was promoted or no line is up."""

    def to_json(self) -> str:
        """The report for machines."""
        return json.dumps(asdict(self), indent=1)

    def __rich__(self) -> "Table":
        """The report for people: one row per product and bundle, complete parts only."""
        from rich.table import Table

        table = Table(
            "product", "bundle", "held out", "AUROC", "false rejects", "escapes", "outcome"
        )
        for night in self.products:
            table.add_row(night.product, *_row(night.champion, night.champion_report), "champion")
            note = f"{night.outcome}: {night.reason}{_doubts(night)}"
            table.add_row("", *_row(night.challenger, night.challenger_report), note)
        return table


def run_night(
    *,
    archive: Archive,
    registry: BundleRegistry,
    line: Line,
    store: PayloadStore,
    products: Sequence[str],
    ray_address: str | None,
    progress: Progress,
    seed: int = 0,
    promote: bool = False,
) -> NightReport:
    """Every product has a challenger in the registry, or the reason why not.

    The same archive, line and seed give the same challengers.

    Args:
        archive: Where characterised parts are known.
        registry: Holds the champions and takes the challengers.
        line: The line.
        store: Holds the captures; the cluster's machines must reach it.
        products: Which to refit.
        ray_address: The cluster to work on; None for a local one, unless this process has one.
        progress: See `Progress`.
        seed: Of every random choice.
        promote: Challengers that are not clearly worse judge from now on, on the running line too.

    Raises:
        Unavailable: The cluster, the store or the running line's scorers do not answer.
        Poison: A replica could not load a challenger; the champions stay.
    """
    began_s = time.monotonic()
    if not ray.is_initialized():
        join_ray(ray_address)
    nights = [
        _Night(product, archive, registry, line=line, store=store, progress=progress).run(seed)
        for product in products
    ]
    swap_s = None
    if promote:
        nights = [decided(night) for night in nights]
        swap_s = _promote(registry, nights)
    return NightReport(products=tuple(nights), seconds=time.monotonic() - began_s, swap_s=swap_s)


class _Night:
    """One product's night."""

    def __init__(
        self,
        product: str,
        archive: Archive,
        registry: BundleRegistry,
        *,
        line: Line,
        store: PayloadStore,
        progress: Progress,
    ) -> None:
        self._product = product
        self._archive = archive
        self._registry = registry
        self._line = line
        self._store = store
        self._progress = partial(progress, product)
        champion = registry.champion(product)
        self._champion = None if champion is None else champion.digest
        self._seconds: dict[str, float] = {}

    def run(self, seed: int) -> ProductNight:
        """Refit and compare; a refusal is an outcome, not an error."""
        samples: list[PartSample] = []
        broken: dict[str, str] = {}
        try:
            with self._timed("total"):
                with self._timed("read"):
                    samples, broken = self._read(self._archive.fully_characterised(self._product))
                    missing, broken_too = self._read(self._naturally_missing())
                    broken |= broken_too
                with self._timed("fit"):
                    challenger = self._fit(samples, missing, seed=seed)
                with self._timed("compare"):
                    held_out = by_role(samples)[Role.GATE]
                    reports = self._compare([challenger, self._champion], held_out)
        except Poison as error:
            return self._report("refused", str(error), samples=samples, broken=broken)
        night = self._report("challenger", "not promoted", samples=samples, broken=broken)
        subsets = self._registry.show(challenger).subsets.items()
        return replace(
            night,
            challenger=challenger,
            challenger_report=reports.get(challenger),
            champion_report=reports.get(self._champion),
            masking={n: each.masking_check for n, each in subsets if each.masking_check},
            withdrawn=tuple(n for n, each in subsets if each.withdrawn is not None),
        )

    def _read(self, parts: Sequence[CharacterisedPart]) -> tuple[list[PartSample], dict[str, str]]:
        return stored_samples(parts, line=self._line, store=self._store, progress=self._progress)

    def _naturally_missing(self) -> list[CharacterisedPart]:
        """Of the calibrate role: parts like those that calibrate, and never learned from."""
        names = set(scored_modalities(self._line, self._product))
        found = [
            replace(part, captures={n: r for n, r in part.captures.items() if n in names})
            for part in self._archive.naturally_missing(self._product)
            if role_of(part.lot) is Role.CALIBRATE
        ]
        return [part for part in found if part.captures]

    def _fit(
        self, samples: Sequence[PartSample], missing: Sequence[PartSample], *, seed: int
    ) -> str:
        ancestors = self._ancestors()
        refuse_mixed_roles(samples, [self._registry.show(each) for each in ancestors])
        with tempfile.TemporaryDirectory(prefix="night-") as folder:
            path = fit_by_tasks(
                samples,
                product=self._product,
                line=self._line,
                out=Path(folder),
                seed=seed,
                parents=ancestors,
                progress=self._progress,
                weights=known_weights(self._line, self._judging()),
            )
            if missing:
                scored = run_tasks(
                    natural_score,
                    [(sample,) for sample in missing],
                    "missing",
                    self._progress,
                    bundle=Bundle.load(path),
                )
                natural = by_subset(missing, scored)
                path = hold_against_masked(path, folder=Path(folder), natural=natural)
            return self._registry.add(path)

    def _judging(self) -> Bundle | None:
        """The champion, as far as the registry still holds it."""
        return None if self._champion is None else self._registry.load(self._champion)

    def _ancestors(self) -> tuple[str, ...]:
        """The champion and what it descends from, as far as the registry still holds them."""
        if self._champion is None:
            return ()
        return (self._champion, *self._registry.show(self._champion).parents)

    def _compare(
        self, digests: Sequence[str | None], samples: Sequence[PartSample]
    ) -> dict[str | None, Report]:
        """What each bundle reaches on `samples`, by digest."""
        named = sorted({digest for digest in digests if digest is not None})
        if not samples or not named:
            return {}
        reports = run_tasks(
            evaluate,
            [(self._registry.load(digest), samples) for digest in named],
            "compare",
            self._progress,
            false_reject_rate=self._line.products[self._product].false_reject_rate,
        )
        return dict(zip(named, reports, strict=True))

    def _report(
        self,
        outcome: Literal["refused", "challenger"],
        reason: str,
        *,
        samples: Sequence[PartSample],
        broken: Mapping[str, str],
    ) -> ProductNight:
        good = [sample for sample in samples if sample.label == "good"]
        parts = {role.value: len(found) for role, found in by_role(good).items()}
        not_random = len(good) - sum(parts.values())
        parts["defective"] = sum(sample.label == "defective" for sample in samples)
        return ProductNight(
            product=self._product,
            outcome=outcome,
            reason=reason,
            parts=parts,
            unreadable=len(broken),
            unreadable_why=tuple(sorted(broken.values())[:BROKEN_SHOWN]),
            not_random=not_random,
            champion=self._champion,
            seconds=dict(self._seconds),
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began_s = time.monotonic()
        try:
            yield
        finally:
            self._seconds[stage] = time.monotonic() - began_s


def refuse_mixed_roles(samples: Sequence[PartSample], ancestors: Sequence[Manifest]) -> None:
    """Raise `Poison` if a lot has another role now than it had for an ancestor.

    It would be held out here and learned from there, or the other way round.
    """
    now = {sample.lot: role_of(sample.lot).value for sample in samples}
    before = [
        (lot, role)
        for each in ancestors
        for role, entry in each.roles.items()
        for lot in entry.lots
    ]
    for lot, role in before:
        if now.get(lot, role) != role:
            raise Poison(
                "roles",
                f"lot {lot!r} was {role} of an ancestor and is {now[lot]} now; "
                "fit a first bundle anew with `hololine model fit`",
            )


def decided(night: ProductNight) -> ProductNight:
    """The night with `promoted` as its outcome, unless there is a reason against it."""
    if night.challenger is None:
        return night
    if night.challenger == night.champion:
        return replace(night, reason="the same bundle as the champion")
    reason = worse(night.challenger_report, night.champion_report)
    if reason is not None:
        return replace(night, reason=f"not promoted, clearly worse: {reason}")
    complete = _complete(night.challenger_report)
    count = 0 if complete is None else complete.good + complete.defective
    return replace(night, outcome="promoted", reason=f"not clearly worse on {count} held-out parts")


def worse(challenger: Report | None, champion: Report | None) -> str | None:
    """Why the challenger is clearly worse on complete parts, or None if it is not.

    Few held-out parts decide little: then only a gross loss is seen.
    """
    new, old = _complete(challenger), _complete(champion)
    if new is None or old is None:
        return None
    if new.auroc is not None and old.auroc is not None and new.auroc < old.auroc - CLEARLY:
        return f"AUROC {new.auroc:.3f} against the champion's {old.auroc:.3f}"
    found, before = new.false_reject_rate, old.false_reject_rate
    if found is not None and before is not None and found > before + CLEARLY:
        return f"{found:.1%} of good parts rejected against the champion's {before:.1%}"
    return None


def _complete(report: Report | None) -> SubsetReport | None:
    """The row of the subset with every modality."""
    return None if report is None else max(report.subsets, key=lambda each: len(each.present))


def _promote(registry: BundleRegistry, nights: Sequence[ProductNight]) -> float | None:
    """The running line, if one is up, and the registry follow; the seconds of the swap."""
    promoted = {n.product: n.challenger for n in nights if n.outcome == "promoted" and n.challenger}
    if not promoted:
        return None
    try:
        wanted_replicas()
    except Unavailable:
        swap_s = None  # no line is up: its next start takes the champions from the registry
    else:
        swap_s = swap(registry.champions() | promoted)
    for night in nights:
        if night.product in promoted:
            registry.promote(night.product, promoted[night.product], why=f"night: {night.reason}")
    return swap_s


def _doubts(night: ProductNight) -> str:
    """What people should know of the promise, besides the outcome."""
    left = f"; {night.not_random} not chosen at random left out of calibration"
    gone = f"; promise withdrawn for {', '.join(night.withdrawn)}"
    return (left if night.not_random else "") + (gone if night.withdrawn else "")


def _row(digest: str | None, report: Report | None) -> list[str]:
    """Cells on one bundle: its digest, and its figures for complete parts."""
    name = "-" if digest is None else digest[:12]
    seen = _complete(report)
    if seen is None:
        return [name, "no part", "-", "-", "-"]
    return [
        name,
        f"{seen.good} good, {seen.defective} defective",
        "-" if seen.auroc is None else f"{seen.auroc:.3f}",
        "-" if seen.false_reject_rate is None else f"{seen.false_reject_rate:.1%}",
        "-" if seen.escape_rate is None else f"{seen.escape_rate:.1%}",
    ]
