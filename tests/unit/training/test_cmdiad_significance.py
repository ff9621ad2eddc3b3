"""A gain is cross-modal above every control only; a promise is kept, broken or impossible."""

import numpy as np
import pytest
from scipy.stats import binom

from connectors.errors import Poison
from training.bootstrap import Interval
from training.cmdiad.ablation import Arm, Effect, Setting, Trial, ablate
from training.cmdiad.metrics import IMAGE_AUROC, PIXEL_AUROC
from training.cmdiad.resampling import MEAN, Resampled
from training.cmdiad.significance import (
    CONTROLS,
    Comparison,
    Finding,
    Promise,
    SubsetScores,
    gains,
    judged,
    promise_checks,
)
from training.cmdiad.summaries import Scored, Summary, summarise

CLASSES = tuple("abcdef")
IMAGES = 120


def images(method: str, strength: float, *, category: str = "a", noise: float = 0.3) -> Summary:
    """Scores of one class: how odd each image looks is shared by all methods."""
    shared = np.random.default_rng(ord(category))
    own = np.random.default_rng([ord(category), *map(ord, method)])
    defective = np.arange(IMAGES) >= IMAGES // 2
    scores = strength * defective + shared.normal(size=IMAGES) + noise * own.normal(size=IMAGES)
    return summarise(
        Scored(
            category=category,
            method=method,
            seed=0,
            keys=tuple(f"{number}" for number in range(IMAGES)),
            defective=defective,
            kinds=tuple("hole" if bad else "good" for bad in defective),
            scores=scores.astype(np.float32),
            read=None,
        )
    )


def resampled(strengths: dict[str, float]) -> Resampled:
    every = [images(m, s, category=c) for m, s in strengths.items() for c in CLASSES]
    return Resampled(every, seed=0, resamples=400)


def compared(*controls: str) -> Comparison:
    return Comparison(
        main="PC", fused="with", alone="PC", controls={name: name for name in controls}
    )


def pooled(strengths: dict[str, float], *controls: str):
    found = gains(resampled(strengths), [compared(*controls)], metrics=[IMAGE_AUROC])
    return {each.category: each for each in found}[MEAN]


def interval(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high, lower_bound=low + 0.001)


def test_above_the_main_alone_and_every_control_is_cross_modal() -> None:
    """Hallucination that adds what no control adds."""
    found = pooled({"PC": 1.0, "with": 2.0, **dict.fromkeys(CONTROLS, 1.0)}, *CONTROLS)
    assert found.finding is Finding.CROSS_MODAL
    assert found.beaten == CONTROLS
    assert found.gain.lower_bound > 0


@pytest.mark.parametrize("strong", CONTROLS)
def test_one_control_that_gains_as_much_makes_it_no_cross_modal_gain(strong) -> None:
    """Whichever it is."""
    strengths = {"PC": 1.0, "with": 2.0, **dict.fromkeys(CONTROLS, 1.0)}
    found = pooled(strengths | {strong: 2.0}, *CONTROLS)
    assert found.finding is Finding.GAIN
    assert found.beaten == tuple(name for name in CONTROLS if name != strong)


def test_without_all_controls_no_gain_is_called_cross_modal() -> None:
    """What was not tried is not beaten."""
    strengths = {"PC": 1.0, "with": 2.0, **dict.fromkeys(CONTROLS, 1.0)}
    assert pooled(strengths, *CONTROLS[:3]).finding is Finding.GAIN
    assert pooled(strengths).finding is Finding.GAIN


def test_a_negative_direction_is_called_harm_and_nothing_is_nothing() -> None:
    """Worse than the main alone is said so, even where controls are worse still."""
    worse = pooled({"PC": 2.0, "with": 1.0, **dict.fromkeys(CONTROLS, 0.2)}, *CONTROLS)
    assert worse.finding is Finding.HARM
    assert worse.gain.value < 0
    alike = pooled({"PC": 1.0, "with": 1.0, **dict.fromkeys(CONTROLS, 0.2)}, *CONTROLS)
    assert alike.finding is Finding.NONE


def test_the_verdict_follows_the_bounds_alone() -> None:
    """At zero nothing is shown, and a large gain with an open interval is none."""
    leads = dict.fromkeys(CONTROLS, interval(0.1, 0.2))
    assert judged(interval(0.0, 0.2), leads) is Finding.CROSS_MODAL
    assert judged(interval(-0.1, 0.9), leads) is Finding.NONE
    assert judged(interval(-0.2, 0.0), leads) is Finding.NONE
    assert judged(interval(-0.2, -0.001), leads) is Finding.HARM
    assert judged(interval(0.1, 0.2), leads | {"another": interval(-0.1, 0.2)}) is Finding.GAIN


def test_no_gain_is_seldom_called_one() -> None:
    """Where the truth is no difference: a gain in one of twenty, harm in one of forty."""
    called = 0
    for run in range(60):
        category = chr(1000 + run)
        made = [images(m, 1.0, category=category, noise=1.0) for m in ("PC", "with")]
        found = gains(Resampled(made, seed=run, resamples=200), [compared()], metrics=[IMAGE_AUROC])
        called += found[0].finding is not Finding.NONE
    assert called <= binom.ppf(0.999, 60, 0.075)


def test_each_class_has_its_own_verdict_and_what_was_not_scored_has_none() -> None:
    """A row a class and one of their mean; figures of pixels are missing here."""
    every = resampled({"PC": 1.0, "with": 2.0})
    found = gains(every, [compared("two banks")], metrics=[IMAGE_AUROC, PIXEL_AUROC])
    assert [each.category for each in found] == [*CLASSES, MEAN]
    assert all(each.rivals == () for each in found)
    for each in found:
        wanted = every.value("with", IMAGE_AUROC, each.category) - each.alone
        assert each.gain.value == pytest.approx(wanted)


SETTINGS = [
    Setting(bank_side=28, weight="1.0", final_gelu=True, path_noise=True),
    Setting(bank_side=56, weight="1.0", final_gelu=True, path_noise=True),
    Setting(bank_side=28, weight="equal", final_gelu=True, path_noise=True),
    Setting(bank_side=28, weight="0.1", final_gelu=True, path_noise=True),
]


def ablated(*strengths: tuple[float, float]):
    """Fused strengths of both mains under each setting; both mains alone have 1."""
    methods = {"PC": 1.0, "RGB": 1.0}
    trials = []
    for number, (setting, pair) in enumerate(zip(SETTINGS, strengths, strict=False)):
        names = [f"{main} {number}" for main in ("PC", "RGB")]
        methods |= dict(zip(names, pair, strict=True))
        arms = (Arm(fused=names[0], alone="PC"), Arm(fused=names[1], alone="RGB"))
        trials.append(Trial(setting=setting, arms=arms))
    return ablate(resampled(methods), trials, mains=("PC", "RGB"), metric=IMAGE_AUROC)


def test_a_factor_that_makes_both_directions_alike_narrows_the_asymmetry() -> None:
    """And one that does nothing, one that turns it round, are told apart."""
    found = ablated((2.2, 1.0), (2.2, 2.0), (2.2, 1.0), (1.0, 2.2))
    effects = [row.effect for row in found.rows]
    assert effects == [Effect.BASELINE, Effect.NARROWS, Effect.NONE, Effect.REVERSES]
    assert found.rows[0].change is None
    assert found.rows[1].directions[1].change.lower_bound > 0
    assert "PC as main more" in found.words
    assert "bank 56" in found.words
    assert len(found.markdown().splitlines()) == 2 + len(found.rows)


def test_a_factor_may_widen_the_asymmetry_or_find_none_to_explain() -> None:
    """The other two verdicts."""
    assert ablated((1.6, 1.0), (2.6, 1.0)).rows[1].effect is Effect.WIDENS
    even = ablated((2.0, 2.0), (2.6, 1.0))
    assert even.rows[1].effect is Effect.NOTHING
    assert "no asymmetry" in even.words


def test_an_ablation_without_a_baseline_or_a_method_is_refused() -> None:
    """By name."""
    every = resampled({"PC": 1.0})
    with pytest.raises(Poison, match="baseline"):
        ablate(every, [], mains=("PC", "RGB"), metric=IMAGE_AUROC)
    missing = Trial(setting=SETTINGS[0], arms=(Arm(fused="x", alone="PC"),) * 2)
    with pytest.raises(Poison, match="x has no"):
        ablate(every, [missing], mains=("PC", "RGB"), metric=IMAGE_AUROC)


def test_promises_are_kept_broken_or_impossible() -> None:
    """Scores alike; scores that drifted up; and 298 images where 1 % takes 299."""
    rng = np.random.default_rng(0)

    def scores(count: int, *, shift: float = 0.0):
        return (rng.normal(size=count) + shift).astype(np.float32)

    found = promise_checks(
        {
            ("bagel", "RGB"): SubsetScores(calibration=scores(400), fresh=scores(800), rate=0.05),
            ("bagel", "PC"): SubsetScores(
                calibration=scores(400), fresh=scores(800, shift=0.6), rate=0.05
            ),
            ("tire", "PC"): SubsetScores(calibration=scores(298), fresh=scores(800), rate=0.01),
        }
    )
    assert [each.verdict for each in found] == [Promise.KEPT, Promise.BROKEN, Promise.IMPOSSIBLE]
    assert [(each.category, each.subset) for each in found][1] == ("bagel", "PC")
    assert found[2].needed == 299
    assert found[2].rejected.hits == 0
    assert found[1].rejected.hits > 0.05 * 800


def test_sound_promises_are_called_broken_in_one_check_of_twenty_at_most() -> None:
    """Over 200 checks of six cells."""
    rng = np.random.default_rng(1)

    def cell() -> SubsetScores:
        values = rng.normal(size=600).astype(np.float32)
        return SubsetScores(calibration=values[:300], fresh=values[300:], rate=0.05)

    broken = sum(
        any(
            each.verdict is Promise.BROKEN
            for each in promise_checks({("a", f"{subset}"): cell() for subset in range(6)})
        )
        for _ in range(200)
    )
    assert broken <= binom.ppf(0.999, 200, 0.05)


@pytest.mark.parametrize("bad", [np.zeros(0, np.float32), np.float32([np.nan])])
def test_scores_that_cannot_be_ranked_are_refused(bad) -> None:
    """None at all, or no number."""
    good = np.zeros(10, np.float32)
    for pair in ((bad, good), (good, bad)):
        cell = SubsetScores(calibration=pair[0], fresh=pair[1], rate=0.05)
        with pytest.raises(Poison, match="PC of tire"):
            promise_checks({("tire", "PC"): cell})
