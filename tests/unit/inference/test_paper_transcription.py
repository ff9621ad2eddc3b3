"""The plain transcription of the authors' pipeline gives what their functions gave."""

import hashlib
import importlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.testing import assert_close

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def formula() -> Iterator[ModuleType]:
    """The transcription, which is no package's: it lies beside the benchmark that runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("authors_formula")


@pytest.fixture(scope="module")
def grouped(golden) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(array)
        for name, array in golden("a_group").items()
        if array.dtype.kind in "fi" and array.ndim
    }


def relative(actual: torch.Tensor, expected: np.ndarray) -> float:
    """Relative L2 error."""
    wanted = torch.from_numpy(expected)
    return float((actual - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(
    ("cloud", "chosen"),
    [("cloud", "fps_idx"), ("cloud_big", "fps_idx_big"), ("cloud_deg", "fps_deg_idx")],
)
def test_farthest_points_are_the_kernel_s(formula, grouped, cloud, chosen) -> None:
    """Same centres in the same order, with ties, duplicates and points near the origin."""
    indices = formula.farthest_points(grouped[cloud], len(grouped[chosen]))
    assert_close(indices.int(), grouped[chosen])


def test_groups_are_the_kernel_s(formula, grouped, golden) -> None:
    """Same neighbours in ascending order, and as sets over all groups of a whole cloud."""
    cloud, centres = grouped["cloud"], grouped["cloud"][grouped["fps_idx"]]
    nearest = formula.nearest_points(cloud, centres, 32)
    assert_close(nearest.int(), grouped["knn_idx"])
    assert_close(cloud[nearest] - centres[:, None], grouped["neigh"], atol=1e-7, rtol=0)
    cloud = grouped["cloud_big"]
    nearest = formula.nearest_points(cloud, cloud[grouped["fps_idx_big"]], 128)
    rows = np.sort(nearest.numpy().astype(np.int32), axis=1)
    digest = hashlib.sha256(rows.tobytes()).hexdigest()
    assert digest == str(golden("a_group")["knn_big_sha256_sorted_rows_i32"])


@pytest.mark.parametrize("mode", ["eval", "batchbn"])
def test_point_features_are_the_original_s(formula, golden, grouped, authors_state, mode) -> None:
    """Tokens and features of a small cloud, by running statistics and by the sample's own."""
    expected = golden("b0_point_transformer")
    network = formula.PointTransformer().train(mode == "batchbn")
    missing = network.load_state_dict(authors_state("PointTransformer", gain=1.0), strict=False)
    assert not missing.unexpected_keys
    assert all("running" in key or "num_batches" in key for key in missing.missing_keys)
    with torch.no_grad():
        tokens = network.encoder(grouped["neigh"])
        features = network.transform(tokens, grouped["cloud"][grouped["fps_idx"]])
    assert relative(tokens, expected[f"tokens_{mode}"]) < 1e-4
    assert relative(features, expected[f"feat_{mode}"]) < 2e-3


def test_interpolated_patches_are_those_of_the_original(formula, golden, grouped) -> None:
    """In float64 the points and patches of the truth, in float32 about those of the original."""
    expected = golden("b_interp")
    cloud = grouped["cloud_big"]
    centres = cloud[grouped["fps_idx_big"]]
    features = torch.from_numpy(expected["group_feat"])
    pixels = torch.from_numpy(golden("f_preprocess")["nonzero_indices"]).long()
    exact = formula.interpolate(cloud.double(), centres.double(), features.double()).float()
    assert_close(exact, torch.from_numpy(expected["interp_f64"]), atol=1e-3, rtol=0)
    for side in (56, 28):
        patches = formula.to_grid(exact, pixels, side)
        assert_close(patches, torch.from_numpy(expected[f"patch{side}_f64"]), atol=1e-3, rtol=0)
    rough = formula.to_grid(formula.interpolate(cloud, centres, features), pixels, 56)
    original = torch.from_numpy(expected["patch56_f32"])
    assert (rough - original).abs().quantile(0.99) < 2e-3


def test_a_cloud_is_what_has_no_zero_coordinate(formula, golden) -> None:
    """The valid points are those of the original, by pixel."""
    expected = golden("f_preprocess")
    organised = torch.from_numpy(expected["resized_pc"]).permute(1, 2, 0)
    cloud, pixels = formula.valid_points(organised)
    assert_close(pixels.int(), torch.from_numpy(expected["nonzero_indices"]))
    assert_close(cloud, torch.from_numpy(golden("a_group")["cloud_big"]))


@pytest.mark.parametrize("side", [28, 56])
def test_image_patches_are_repeated_tokens(formula, golden, side) -> None:
    """The finer grid is a copy of the coarser one."""
    expected = golden("b_rgb_patch")
    patches = formula.image_patches(torch.from_numpy(expected["feat"]), side)
    assert torch.equal(patches, torch.from_numpy(expected[f"patch{side}"]))


def test_hallucinated_features_are_the_original_s(formula, golden, authors_state) -> None:
    """Both directions at full size, with the authors' names of weights."""
    expected = golden("c_f2f_full")
    heads = formula.FeatureToFeature()
    heads.load_state_dict(authors_state("F2F", gain=1.0))
    xyz = torch.sin(0.618 * torch.arange(64 * 768, dtype=torch.float64)).float().view(64, 768)
    with torch.no_grad():
        assert relative(heads.rgb_of(xyz)[::4], expected["hal_rgb"]) < 1e-4
        assert relative(heads.xyz_of(0.5 * xyz)[::4], expected["hal_xyz"]) < 1e-4


@pytest.mark.parametrize(("side", "step"), [(28, 2), (56, 4)])
def test_scores_and_maps_are_the_original_s(formula, golden, side, step) -> None:
    """Distances, rows, image score and the blurred map."""
    expected = golden(f"e_score_{side}")
    query, bank = torch.from_numpy(expected["query"]), torch.from_numpy(expected["bank"])
    scored = formula.score_patches(query, bank, lambda _: nullcontext(), of="own")
    assert_close(scored.distances, torch.from_numpy(expected["min_val"]), atol=1e-4, rtol=0)
    assert_close(scored.nearest.int(), torch.from_numpy(expected["min_idx"]))
    assert_close(float(scored.score), float(expected["s"]), rtol=1e-4, atol=0)
    up = formula.upsampled(scored.distances)
    assert_close(up[::8, ::8], torch.from_numpy(expected["up_sub"]), atol=1e-4, rtol=0)
    level = float(expected["min_val"].max()) / 255
    pixels = torch.from_numpy(expected["s_map_sub"])
    assert_close(scored.pixels[::step, ::step], pixels, atol=1.01 * level, rtol=0)


def test_fusion_is_linear(formula, golden) -> None:
    """The fused score is the weighted sum, without the support vector machine's offset."""
    expected = golden("e_fusion")
    parts = torch.from_numpy(expected["T"]).float()
    fused = formula.fuse(parts[:, 0], parts[:, 1], tuple(expected["coef"].tolist()))
    assert_close(fused, torch.from_numpy(expected["scores"]).float(), rtol=1e-5, atol=1e-6)


def test_image_features_are_the_original_s(formula, golden, authors_state) -> None:
    """The whole image eye on a picture as the original loads it."""
    import timm

    picture = torch.from_numpy(golden("f_rgb")["rgb224_u8"]).float() / 255
    shift, scale = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    vit = timm.create_model("vit_base_patch8_224.dino", pretrained=False, num_classes=0).eval()
    vit.load_state_dict(authors_state("ViT", gain=0.5))
    image = (picture - shift[:, None, None]) / scale[:, None, None]
    with torch.no_grad():
        features = formula.image_features(vit, image)
    expected = golden("b1_vit")
    stats = torch.stack((features.mean(), features.std(), features.abs().max()))
    wanted = torch.from_numpy(expected["feat_mean_std_absmax"]).float()
    assert_close(stats, wanted, rtol=1e-3, atol=1e-4)
    assert relative(features[::12, ::3, ::3], expected["feat_sub"]) < 2e-3
