"""AUROC, rates and intervals agree with references and with what they promise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from deploy.rates import auroc, auroc_interval, percentiles, rate, rate_interval

ITEMS = st.lists(st.tuples(st.integers(0, 9).map(float), st.booleans()), min_size=2, max_size=40)


@given(ITEMS)
def test_auroc_of_one_stratum_is_the_reference(items) -> None:
    """One stratum gives scikit-learn's area, ties included; without pairs there is none."""
    scores, labels = zip(*items, strict=True)
    if len(set(labels)) < 2:
        assert auroc([items]) is None
    else:
        assert auroc([items]) == pytest.approx(roc_auc_score(labels, scores))


def test_strata_are_never_compared_with_each_other() -> None:
    """Two perfect strata on different scales stay perfect together."""
    near, far = [(0.1, False), (0.2, True)], [(100.0, False), (200.0, True)]
    assert auroc([near, far]) == 1.0
    assert roc_auc_score([d for _, d in near + far], [s for s, _ in near + far]) < 1.0


def test_intervals_hold_the_estimate_and_repeat() -> None:
    """The bootstrap has a fixed seed and brackets the area."""
    items = [(float(i % 7), i % 3 == 0) for i in range(60)]
    low, high = auroc_interval([items])
    assert low <= auroc([items]) <= high
    assert auroc_interval([items]) == (low, high)
    assert auroc_interval([[(1.0, False)]]) is None


def test_rate_intervals_are_exact() -> None:
    """Textbook values of Clopper and Pearson; nothing seen means nothing known."""
    assert rate_interval(0, 10) == (0.0, pytest.approx(0.3085, abs=1e-4))
    assert rate_interval(10, 10) == (pytest.approx(0.6915, abs=1e-4), 1.0)
    assert rate_interval(0, 0) == (0.0, 1.0)
    assert rate(0, 0) is None


def test_percentiles_say_how_many_there_were() -> None:
    """Median, 99th percentile and count."""
    assert percentiles([1.0, 2.0, 3.0]) == {"p50": 2.0, "p99": pytest.approx(2.98), "n": 3}
