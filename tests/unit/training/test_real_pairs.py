"""Predicting one sensor from another is measured on unseen objects, against fair rivals."""

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from connectors.errors import Poison
from inference.extractors import build_extractor
from inference.model.grid import GRID, PATCHES
from training.real_pairs import (
    FOLDS,
    INFRARED,
    RGB,
    Objects,
    direction_of,
    folds_of,
    main,
    measure,
    predicted,
    read_objects,
)

COUNT = 15


def least_squares(source: torch.Tensor, target: torch.Tensor) -> nn.Module:
    """The best linear head, at once."""
    ones = torch.ones(len(source), 1)
    found = torch.linalg.lstsq(torch.cat((source, ones), dim=1), target).solution
    head = nn.Linear(source.shape[1], target.shape[1])
    head.weight.data, head.bias.data = found[:-1].t(), found[-1]
    return head


def objects_of(*, related: bool) -> Objects:
    """Every object has something of its own, the same for both sensors (turned) or not."""
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(2, COUNT, PATCHES, 4, generator=generator)
    turned = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    infrared = own[0] @ turned if related else own[1]
    grid = torch.zeros(COUNT, GRID, GRID, dtype=torch.bool)
    grid[:, 20:40, 20:40] = True
    return Objects(
        alike=True,
        category="made-up",
        pictures={RGB: [np.zeros((8, 8), np.uint8)] * COUNT},
        features={RGB: own[0], INFRARED: infrared},
        on_object=grid.flatten(1),
    )


def test_what_is_predictable_is_found() -> None:
    """A turn is learned: cosine near 1, above the shuffled pairs, nearly all explained."""
    for found in measure([objects_of(related=True)], seed=0, trainer=least_squares):
        assert found.cosine.value > 0.98
        assert found.over_shuffled.low > 0.5
        assert found.explained.value > 0.95
        assert found.holds
        assert found.objects == COUNT


def test_what_is_unrelated_does_not_hold() -> None:
    """A head that learns nothing has some cosine, as the mean is noisy; so have shuffled pairs."""
    found = measure([objects_of(related=False)], seed=0, trainer=least_squares)
    assert len(found) == 4
    for direction in found:
        assert direction.cosine.value > 0.1
        assert abs(direction.over_shuffled.value) < 0.02
        assert direction.explained.value < 1.5 / COUNT
        assert not direction.holds


def test_knowing_the_place_alone_explains_nothing() -> None:
    """Objects that differ by noise from their category's pattern: the mean is hard to beat."""
    objects = objects_of(related=False)
    places = torch.randn(PATCHES, 4, generator=torch.Generator().manual_seed(1))
    patterned = {name: 3 * places + each for name, each in objects.features.items()}
    outcome = predicted(
        Objects(
            alike=True,
            category="patterned",
            pictures=objects.pictures,
            features=patterned,
            on_object=objects.on_object,
        ),
        source=RGB,
        target=INFRARED,
        seed=0,
        trainer=least_squares,
    )
    found = direction_of(outcome, category="patterned", source=RGB, target=INFRARED, seed=0)
    assert found.explained.value < 0
    assert not found.holds


def test_each_object_is_predicted_once_by_heads_that_had_not_seen_it() -> None:
    """Folds part the objects; no row of a held-out object is in the training."""
    objects = objects_of(related=True)
    marks = torch.arange(float(COUNT))[:, None, None].expand(COUNT, PATCHES, 1)
    marked = Objects(
        alike=True,
        category="marked",
        pictures=objects.pictures,
        features={RGB: marks, INFRARED: marks},
        on_object=objects.on_object,
    )
    learned = []

    def watched(source: torch.Tensor, target: torch.Tensor) -> nn.Module:
        learned.append((source[:, 0], target[:, 0]))
        return nn.Identity()

    held_out = []
    for fold in folds_of(marked, source=RGB, target=INFRARED, seed=0, trainer=watched):
        own, others = learned[-2:]
        inside = torch.cat([fold.source(marks[i])[:1, 0] for i in fold.held_out])
        assert not torch.isin(torch.cat((own[0], others[0], others[1])), inside).any()
        assert torch.equal(own[0], own[1])
        assert not (others[0] == others[1]).any()  # a shuffled pair is never a true one
        held_out += fold.held_out
    assert sorted(held_out) == list(range(COUNT))
    assert len(learned) == 2 * FOLDS


def write_folder(root, *, count: int) -> None:
    """Bright squares on dark ground in colour, dark on bright in infrared, 4 pixels apart."""
    rng = np.random.default_rng(0)
    for number in range(count):
        folder = root / "cube" / ("train" if number % 2 else "test") / "good" / f"{number:03}"
        folder.mkdir(parents=True)
        top, left = rng.integers(8, 20, size=2)
        rgb = rng.integers(0, 12, (64, 64, 3)).astype(np.uint8)
        rgb[top : top + 24, left : left + 24] += 180
        infrared = rng.integers(200, 240, (64, 64)).astype(np.uint8)
        infrared[top + 2 : top + 26, left : left + 24] -= 180
        cv2.imwrite(str(folder / "rgb.png"), rgb)
        cv2.imwrite(str(folder / "infrared.png"), infrared)


def test_good_pairs_are_read_and_the_object_is_where_it_is_bright(tmp_path) -> None:
    """Defective and unpaired objects are left out; the ground does not count as object."""
    write_folder(tmp_path, count=10)
    odd = tmp_path / "cube" / "test" / "hole" / "000"
    odd.mkdir(parents=True)
    picture = np.zeros((64, 64), np.uint8)
    cv2.imwrite(str(odd / "rgb.png"), picture)
    cv2.imwrite(str(odd / "infrared.png"), picture)
    alone = tmp_path / "cube" / "test" / "good" / "alone"
    alone.mkdir()
    cv2.imwrite(str(alone / "rgb.png"), picture)
    objects = read_objects(tmp_path, category="cube", extractor=build_extractor("filter-bank", {}))
    assert objects.features[RGB].shape[:2] == (10, PATCHES)
    share = objects.on_object.float().mean(1)
    assert (share - (25 / 56) ** 2).abs().max() < 0.05  # 21 patches and two on each side


def test_few_objects_are_refused(tmp_path) -> None:
    """The error says how many there are and how many are needed."""
    write_folder(tmp_path, count=4)
    with pytest.raises(Poison, match="4 good pairs; 10 are needed"):
        read_objects(tmp_path, category="cube", extractor=build_extractor("filter-bank", {}))


def test_the_command_tells_and_draws(tmp_path, monkeypatch, capsys) -> None:
    """One line per category and direction, the same for machines; the picture has its size."""
    write_folder(tmp_path / "data", count=10)
    monkeypatch.setattr("training.distill.STEPS", 5)
    plot = tmp_path / "pairs.png"
    status = main([str(tmp_path / "data"), "--json", "--plot", str(plot)])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [each["category"] for each in told["directions"]] == ["cube", "cube", "all", "all"]
    assert status in (0, 1)
    drawn = cv2.imread(str(plot))
    assert drawn.shape[1] > 1000
    assert drawn.std() > 20
