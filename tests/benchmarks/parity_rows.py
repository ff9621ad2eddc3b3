"""Every output of the golden files as ours makes it; `parity.py` says how near it is.

One function for each file, of its name, which is given that file's arrays.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import Any, Final

import golden_vectors
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inference.cleaning import keep_largest
from inference.model.backbone import as_imagenet
from inference.model.bank import Bank
from inference.model.coreset import farthest_first, greedy_coreset, projected_dim
from inference.model.paper.fusion import LinearFusion
from inference.model.paper.heads import PAPER_EXACT, FeatureToInput, InputToFeature, build_head
from inference.model.paper.heads import from_authors as head_state
from inference.model.paper.losses import Loss, feature_loss, input_loss
from inference.model.paper.point_mae import PointMae
from inference.model.paper.points import Clouds, farthest_points, nearest_points
from inference.model.paper.pooling import interpolation, pooling_operator
from inference.model.paper.score import Worst, blurred, blurred_in_bytes, pixel_map
from inference.model.paper.vit import VisionTransformer, repeat_to_grid
from inference.organised import known
from inference.prepared import pad_to_square, resized_mask, resized_nearest, resized_picture
from training.cmdiad.methods import support
from training.cmdiad.metrics import PIXEL_AUROC, RankedPixels

Golden = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Made:
    """One array as ours makes it.

    Args:
        array: Its name in the golden file.
        by: What of ours makes it.
        ours: Its values.
        clause: Which part of a tolerance that knows two ways holds for ours.
        level: One of 255 of the map, for tolerances in levels.
        beside: The golden array to hold it to, if that is not its own.
    """

    array: str
    by: Callable[..., Any]
    ours: Any
    _: KW_ONLY
    clause: int = 0
    level: float = 1.0
    beside: str | None = None


@cache
def golden_file(name: str) -> Golden:
    """The arrays of a golden file, read once."""
    return golden_vectors.arrays(name)


def f_preprocess(golden: Golden) -> Iterator[Made]:
    """Padding, the one body, 224 x 224, and the list of points."""
    padded = pad_to_square(golden["pc_in"])
    yield Made("padded_shape", pad_to_square, padded.shape)
    kept = keep_largest(padded)
    yield Made("clean_mask", keep_largest, kept)
    cloud = resized_nearest(np.where(kept[..., None], padded, 0))
    yield Made("resized_pc", resized_nearest, cloud.transpose(2, 0, 1))
    yield Made("nonzero_indices", known, np.flatnonzero(known(cloud)))


def f_rgb(golden: Golden) -> Iterator[Made]:
    """Pictures by Pillow's filter, on ImageNet's scale, and masks."""
    picture = resized_picture(golden["rgb_in"]).transpose(2, 0, 1)
    yield Made("rgb224_u8", resized_picture, picture, clause=1)
    yield Made("rgb224_norm_sub", as_imagenet, _image()[0, :, ::8, ::8], clause=1)
    yield Made("gt224", resized_mask, resized_mask(golden["gt_in"]))


def _image() -> Tensor:
    """The normalised image that networks of the golden files see."""
    picture = torch.from_numpy(resized_picture(golden_file("f_rgb")["rgb_in"]).copy())
    return as_imagenet(picture.permute(2, 0, 1)[None] / 255)


def a_group(golden: Golden) -> Iterator[Made]:
    """Farthest points and their neighbours."""
    clouds = {name: _clouds(golden[name]) for name in ("cloud", "cloud_big", "cloud_deg")}
    counts = {"cloud": 64, "cloud_big": 1024, "cloud_deg": 400}
    chosen = {name: farthest_points(each, counts[name]) for name, each in clouds.items()}
    yield Made("fps_idx", farthest_points, chosen["cloud"][0])
    yield Made("fps_idx_big", farthest_points, chosen["cloud_big"][0])
    yield Made("fps_deg_idx", farthest_points, chosen["cloud_deg"][0])
    near = nearest_points(clouds["cloud"], chosen["cloud"], 32)[0]
    yield Made("knn_idx", nearest_points, near)
    points = clouds["cloud"].points[0]
    yield Made("neigh", nearest_points, points[near] - points[chosen["cloud"][0]][:, None])
    near = nearest_points(clouds["cloud_big"], chosen["cloud_big"], 128)[0].int()
    yield Made("knn_big_first8_groups", nearest_points, near[:8])
    digest = hashlib.sha256(np.sort(near.numpy(), axis=1).tobytes()).hexdigest()
    yield Made("knn_big_sha256_sorted_rows_i32", nearest_points, digest)
    points = clouds["cloud_big"].points[0]
    radius = torch.cdist(points, points[chosen["cloud_big"][0]]).amin(1).max()
    yield Made("coverage_radius_big", farthest_points, radius)


def _clouds(points: NDArray[Any]) -> Clouds:
    """One cloud, of which nobody asks where in an image its points lie."""
    pixels = torch.arange(len(points))[None]
    return Clouds(torch.from_numpy(points)[None], pixels, torch.tensor([len(points)]), side=224)


def b0_point_transformer(golden: Golden) -> Iterator[Made]:
    """Point-MAE in both modes of batch norm."""
    state = golden_vectors.authors_state("PointTransformer", gain=1.0)
    for layer, width in (("first_conv", 128), ("second_conv", 512)):
        state[f"encoder.{layer}.1.running_mean"] = torch.zeros(width)
        state[f"encoder.{layer}.1.running_var"] = torch.ones(width)
    clouds = _clouds(golden_file("a_group")["cloud"])
    points = clouds.points[0]
    for statistics, name in (("running", "eval"), ("sample", "batchbn")):
        eye = PointMae(state, statistics=statistics, groups=64, group_size=32)
        seen = eye(clouds)
        near = nearest_points(clouds, seen.centres, 32)[0]
        tokens = eye.encoder(points[near] - points[seen.centres[0]][:, None])
        yield Made(f"tokens_{name}", type(eye.encoder), tokens)
        yield Made(f"feat_{name}", PointMae, seen.features[0].t())


def b_interp(golden: Golden) -> Iterator[Made]:
    """From groups to points and patches."""
    organised = torch.from_numpy(golden_file("f_preprocess")["resized_pc"]).permute(1, 2, 0)
    clouds = Clouds.of(organised[None])
    chosen = torch.from_numpy(golden_file("a_group")["fps_idx_big"]).long()
    features = torch.from_numpy(golden["group_feat"])
    nearest, shares = interpolation(clouds.points[0], clouds.points[0, chosen])
    yield Made("interp_f64", interpolation, (features[:, nearest] * shares).sum(2))
    for grid in (56, 28):
        patches = pooling_operator(clouds, chosen[None], grid=grid)[0] @ features.t()
        yield Made(f"patch{grid}_f64", pooling_operator, patches)
        if grid == 56:
            yield Made("patch56_f32", pooling_operator, patches)


def b_rgb_patch(golden: Golden) -> Iterator[Made]:
    """Tokens of an image on both grids."""
    tokens = torch.from_numpy(golden["feat"]).flatten(1).t()[None]
    for grid in (28, 56):
        yield Made(f"patch{grid}", repeat_to_grid, repeat_to_grid(tokens, grid)[0])


def b1_vit(golden: Golden) -> Iterator[Made]:
    """DINO's ViT-B/8."""
    eye = VisionTransformer(golden_vectors.authors_state("ViT", gain=0.5))
    tokens = eye(_image())[0]
    features = tokens.t().unflatten(1, eye.grid)[::12, ::3, ::3]
    yield Made("feat_sub", VisionTransformer, features)
    summary = torch.stack([tokens.mean(), tokens.std(), tokens.abs().max()])
    yield Made("feat_mean_std_absmax", VisionTransformer, summary)


def c_f2f(golden: Golden) -> Iterator[Made]:
    """Heads between features of both directions, and losses of what the authors' heads say."""
    state = {name[3:]: torch.from_numpy(golden[name]) for name in golden if name[:3] == "sd/"}
    features = {name: torch.from_numpy(golden[f"{name}_in"]) for name in ("xyz", "rgb")}
    for source, target in (("xyz", "rgb"), ("rgb", "xyz")):
        head = _f2f(
            state,
            source=source,
            dims=(features[source].shape[2], len(state[f"{target}_norm.bias"])),
        )
        yield Made(f"hal_{target}", type(head), head(features[source]))
    losses: dict[str, Loss] = {"l2": "l2", "cos_dist": "cosine", "smooth_l1": "smooth-l1"}
    for name, loss in losses.items():
        found = [
            feature_loss(
                loss, predicted=torch.from_numpy(golden[f"hal_{each}"]), target=features[each]
            )
            for each in ("xyz", "rgb")
        ]
        yield Made(f"loss_{name}", feature_loss, torch.stack(found))


def c_f2f_full(golden: Golden) -> Iterator[Made]:
    """The same at full size."""
    state = golden_vectors.authors_state("F2F", gain=1.0)
    features = _waves(64 * 768, 0.618).view(64, 768)
    for source, target, gain in (("xyz", "rgb", 1.0), ("rgb", "xyz", 0.5)):
        head = _f2f(state, source=source, dims=(768, 768))
        yield Made(f"hal_{target}", type(head), head(gain * features)[::4])


def _f2f(state: dict[str, Tensor], *, source: Any, dims: tuple[int, int]) -> nn.Module:
    head = build_head(PAPER_EXACT, source=dims[0], target=dims[1])
    head.load_state_dict(head_state("f2f", state, source=source))
    return head


def _waves(count: int, step: float) -> Tensor:
    return torch.from_numpy(np.sin(step * np.arange(count)).astype(np.float32))


def c_f2i(golden: Golden) -> Iterator[Made]:
    """The head from features to an input, and its loss."""
    head = FeatureToInput(source_dim=8)
    head.load_state_dict(head_state("f2i", golden_vectors.authors_state("F2I(dim=8)", gain=1.0)))
    made = head(_waves(3136 * 8, 0.377).view(1, 3136, 8))
    yield Made("out_sub", FeatureToInput, made[0, :, ::4, ::4])
    yield Made("loss", input_loss, input_loss(predicted=made, target=torch.zeros_like(made)))


def c_i2f(golden: Golden) -> Iterator[Made]:
    """The head from an input to features."""
    head = InputToFeature(target_dim=12).eval()
    state = golden_vectors.authors_state("HRNet(512,12)", gain=0.5)
    head.load_state_dict(head_state("i2f", state), strict=False)  # statistics stay as they begin
    yield Made("out", InputToFeature, head(_image())[0].t().unflatten(1, (56, 56)))


def d_coreset(golden: Golden) -> Iterator[Made]:
    """Which rows a bank keeps, and how well they cover the others."""
    rows = torch.from_numpy(golden["Z"])
    chosen = greedy_coreset(rows, 60, seed=0)
    radius = torch.cdist(rows, rows[chosen]).amin(1).max()
    yield Made("idx_from_zp", farthest_first, farthest_first(torch.from_numpy(golden["zp"]), 50))
    yield Made("jl_dims", projected_dim, projected_dim(len(golden["zp"])))
    yield Made("idx_TF32", greedy_coreset, chosen)
    yield Made("cover_TF32", greedy_coreset, radius)
    yield Made("idx_FP16", greedy_coreset, radius, beside="cover_FP16")
    yield Made("cover_FP16", greedy_coreset, radius)


def e_score_28(golden: Golden) -> Iterator[Made]:
    """Distances, image score and map of patches on the coarser grid."""
    queries, bank = torch.from_numpy(golden["query"]), Bank.of(torch.from_numpy(golden["bank"]))
    found = bank.nearest(queries)
    yield Made("min_val", Bank.nearest, found.distances[:, 0])
    yield Made("min_idx", Bank.nearest, found.rows[:, 0])
    yield Made("s", Worst.scores, Worst.of([queries], [found], bank).scores()[0])
    pixels = pixel_map(found.distances[:, 0])
    step = 224 // len(golden["up_sub"])
    yield Made("up_sub", pixel_map, pixels[::step, ::step])
    step, level = 224 // len(golden["s_map_sub"]), float(pixels.max()) / 255
    for clause, blur in enumerate((blurred, blurred_in_bytes)):
        map_ = blur(pixels)[::step, ::step]
        yield Made("s_map_sub", blur, map_, clause=clause, level=level)


def e_score_56(golden: Golden) -> Iterator[Made]:
    """The same on the finer grid."""
    yield from e_score_28(golden)


def e_fusion(golden: Golden) -> Iterator[Made]:
    """The direction of the one-class SVM, and scores fused by it."""
    yield Made("coef", support, support(golden["S"]))
    weights = {"cloud": float(golden["coef"][0]), "image": float(golden["coef"][1])}
    fusion = LinearFusion(image_weights=weights, pixel_weights={})
    columns = dict(zip(weights, torch.from_numpy(golden["T"]).unbind(1), strict=True))
    yield Made("scores", LinearFusion.image, fusion.image(columns))


def g_metrics(golden: Golden) -> Iterator[Made]:
    """Figures of pixels in the authors' form."""
    pairs = zip(golden["preds"], golden["gts"] > 0, strict=True)
    found = RankedPixels.of(pairs).authors_figures()
    for array, name in (("aupro30", "AUPRO@30"), ("aupro01", "AUPRO@1"), ("pauroc", PIXEL_AUROC)):
        yield Made(array, RankedPixels.authors_figures, found[name])


MAKERS: Final = (
    f_preprocess,
    f_rgb,
    a_group,
    b0_point_transformer,
    b_interp,
    b_rgb_patch,
    b1_vit,
    c_f2f,
    c_f2f_full,
    c_f2i,
    c_i2f,
    d_coreset,
    e_score_28,
    e_score_56,
    e_fusion,
    g_metrics,
)
"""One for each golden file, of its name."""
