"""The frozen generator: its default output is what the file says, and a change is noticed."""

import copy

import pytest

from connectors.simulator.frozen import deviations, fingerprint, frozen, generator_version


def test_the_default_output_is_the_frozen_one():
    """Block means of every product and kind lie within the tolerance of the file."""
    assert max(deviations(fingerprint(), frozen()).values()) < 1.0
    assert len(generator_version()) == 12


def test_a_change_of_one_block_is_noticed():
    """A hundredth of a millimetre in one block of one capture breaks the freeze."""
    changed = copy.deepcopy(frozen())
    changed["can dent"]["scan"][27] += 0.01
    gaps = deviations(changed, frozen())
    assert gaps["scan"] > 1
    assert gaps["rgb"] == 0
    del changed["can dent"]
    with pytest.raises(ValueError, match="can dent"):
        deviations(changed, frozen())
