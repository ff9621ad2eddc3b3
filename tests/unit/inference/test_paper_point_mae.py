"""The eye of clouds, against the authors' network and against itself in other company."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from inference.model.paper import group_encoder
from inference.model.paper.point_mae import UNIT_SCALE, PointMae
from inference.model.paper.points import Clouds, nearest_points

GROUPS = {"groups": 64, "group_size": 32}

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state(authors_state: Callable[..., State]) -> State:
    """Weights, with the stored statistics that batch norm begins with."""
    weights = authors_state("PointTransformer", gain=1.0)
    for layer, width in (("first_conv", 128), ("second_conv", 512)):
        weights[f"encoder.{layer}.1.running_mean"] = torch.zeros(width)
        weights[f"encoder.{layer}.1.running_var"] = torch.ones(width)
    return weights


@pytest.fixture(scope="module")
def cloud(golden: Callable[[str], dict[str, np.ndarray]]) -> torch.Tensor:
    return torch.from_numpy(golden("a_group")["cloud"])


def clouds_of(*points: torch.Tensor) -> Clouds:
    padded = torch.nn.utils.rnn.pad_sequence(list(points), batch_first=True)
    pixels = torch.arange(padded.shape[1]).expand(len(points), -1)
    return Clouds(padded, pixels, torch.tensor([len(each) for each in points]), side=224)


def grouped(cloud: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    nearest = nearest_points(clouds_of(cloud), centres[None], 32)[0]
    return cloud[nearest] - cloud[centres][:, None]


def distance(mine: torch.Tensor, theirs: np.ndarray) -> float:
    """Relative, in L2."""
    return float((mine - torch.from_numpy(theirs)).norm() / np.linalg.norm(theirs))


@pytest.mark.parametrize(("statistics", "name"), [("sample", "batchbn"), ("running", "eval")])
def test_tokens_and_features_are_those_of_the_authors(
    state, cloud, golden, statistics, name
) -> None:
    """In either mode of batch norm, with every branch in use."""
    expected = golden("b0_point_transformer")
    eye = PointMae(state, statistics=statistics, **GROUPS)
    seen = eye(clouds_of(cloud))
    tokens = eye.encoder(grouped(cloud, seen.centres[0]))
    assert distance(tokens, expected[f"tokens_{name}"]) < 1e-5
    assert distance(seen.features[0].t(), expected[f"feat_{name}"]) < 1e-5
    assert seen.features.shape == (1, 64, eye.dim)


@pytest.mark.parametrize("statistics", ["sample", "running"])
def test_a_cloud_alone_looks_as_it_does_among_others(state, cloud, statistics) -> None:
    """Bit for bit, whatever is beside it and however much it is padded."""
    eye = PointMae(state, statistics=statistics, **GROUPS)
    alone = eye(clouds_of(cloud[:900])).features[0]
    among = eye(clouds_of(cloud + 0.1, cloud[:900], 2 * cloud[500:])).features[1]
    assert torch.equal(alone, among)


@pytest.mark.parametrize("statistics", ["sample", "running"])
def test_tokens_do_not_tell_in_which_blocks_they_were_made(
    state, cloud, statistics, monkeypatch
) -> None:
    """Statistics are those of the whole sample, also if its last block is a short one."""
    encoder = PointMae(state, statistics=statistics, **GROUPS).encoder
    groups = grouped(cloud, torch.arange(0, 2000, 40))
    whole = encoder(groups)
    monkeypatch.setattr(group_encoder, "_BLOCK_ROWS", 7 * 32)
    torch.testing.assert_close(encoder(groups), whole, rtol=1e-5, atol=1e-5)


def test_groups_in_metres_look_alike_to_stored_statistics_until_they_are_scaled(
    state, cloud
) -> None:
    """Why there is a scale: without it hardly anything of a group is left in its token."""
    groups = grouped(cloud, torch.arange(0, 2000, 40))

    def variety(scale: float) -> float:
        tokens = PointMae(state, statistics="running", **GROUPS).encoder(groups * scale)
        return float(tokens.std(0).mean() / tokens.abs().mean())

    assert variety(1) < 0.05
    assert variety(UNIT_SCALE) > 0.2
    eye = PointMae(state, statistics="running", scale=UNIT_SCALE, **GROUPS)
    seen = eye(clouds_of(cloud))
    centres = seen.centres[0]
    tokens = eye.encoder(grouped(cloud, centres) * UNIT_SCALE)
    assert torch.equal(seen.features, eye.transform(tokens[None], cloud[centres][None]))


def test_in_half_precision_it_sees_nearly_the_same(state, cloud) -> None:
    """Under autocast only the large products are rounded: not coordinates, nor statistics."""
    eye = PointMae(state, **GROUPS)
    seen = eye(clouds_of(cloud))
    groups = grouped(cloud, seen.centres[0])
    _, moments = eye.encoder._maxima(groups, eye.encoder._first(groups))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = eye(clouds_of(cloud)).features
        _, same = eye.encoder._maxima(groups, eye.encoder._first(groups))
    assert torch.equal(same.means, moments.means)
    assert torch.equal(same.covariance, moments.covariance)
    assert half.dtype == torch.float32
    assert distance(half, seen.features.numpy()) < 0.02


@pytest.mark.parametrize(
    ("change", "misfit"),
    [
        ({"norm.bias": None}, "norm.bias is missing"),
        ({"norm.bias": torch.zeros(3)}, r"norm.bias is \(3,\) instead of \(384,\)"),
        ({"cls_token": torch.zeros(1)}, "cls_token has no place in the network"),
        ({"encoder.first_conv.1.running_var": None}, "running_var is missing"),
    ],
)
def test_the_first_misfit_is_named(state, change, misfit) -> None:
    """Wrong weights never make a silent eye."""
    wrong = {key: value for key, value in (state | change).items() if value is not None}
    with pytest.raises(ValueError, match=f"weights do not fit: .*{misfit}"):
        PointMae(wrong, statistics="running")
