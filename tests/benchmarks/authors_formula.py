"""CMDIAD for one part, as plainly as its authors run it: batch 1, float32, no shortcut.

A reference to hold the `paper` profile against, in results and in time. It is written from the
facts (shapes, constants, order of operations; see `tests/golden/README.md`), takes whatever torch
offers for each step, and leaves out nothing that costs the original time, with two exceptions: the
two CUDA-only steps (farthest points, nearest points) have stand-ins of the same results, and
DropPath, which the original leaves on by oversight, is off, or no two runs would agree.

Source: CMDIAD, arXiv 2405.13571; Point-MAE, arXiv 2203.06604; PatchCore, arXiv 2106.08265.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Final

import numpy as np
import torch
from authors_networks import FeatureToFeature, PointTransformer
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

IMAGE_SIDE: Final = 224
GRID: Final = 56
IMAGE_GRID: Final = 28
GROUPS: Final = 1024
GROUP_SIZE: Final = 128
REWEIGHT: Final = 3
BLUR_RADIUS: Final = 4
NORM_SQUARED_MIN: Final = 1e-3
FPS_BLOCK_MAX: Final = 512

Stage = Callable[[str], AbstractContextManager[None]]


class Stopwatch:
    """Milliseconds by stage: on the wall, and of all processors (which load disturbs less)."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.processors: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the time inside towards `stage`."""
        begun, used = perf_counter(), process_time()
        yield
        for taken, since in (
            (self.wall, perf_counter() - begun),
            (self.processors, process_time() - used),
        ):
            taken[stage] = taken.get(stage, 0.0) + 1000 * since


# --- points ---------------------------------------------------------------------------------------


def valid_points(organised: Tensor) -> tuple[Tensor, Tensor]:
    """The points [N, 3] whose three coordinates are all non-zero, and their pixels [N]."""
    points = organised.reshape(-1, 3)
    pixels = (points != 0).all(dim=1).nonzero().flatten()
    return points[pixels], pixels


def farthest_points(cloud: Tensor, count: int) -> Tensor:
    """Indices [count] of farthest-point sampling from point 0 on, ties as the CUDA kernel's.

    Points within sqrt(1e-3) of the origin are never chosen. Of equally far points the one comes
    first whose place in its thread block is smallest when its bits are read backwards.
    """
    points = cloud.numpy()
    block = min(FPS_BLOCK_MAX, 1 << (len(points).bit_length() - 1))
    bits = block.bit_length() - 1
    reverse = [int(f"{k:0{bits}b}"[::-1], 2) if bits else 0 for k in range(block)]
    index = np.arange(len(points))
    order = np.lexsort((index, np.array(reverse)[index % block]))
    x, y, z = np.ascontiguousarray(points[order].T)
    allowed = (x * x + y * y + z * z).astype(np.float64) > NORM_SQUARED_MIN
    distance = np.where(allowed, np.float32(1e10), np.float32(-1))
    chosen = [0]
    for _ in range(count - 1):
        a, b, c = points[chosen[-1]]
        step = (x - a) * (x - a) + (y - b) * (y - b) + (z - c) * (z - c)
        np.minimum(distance, step, out=distance)
        chosen.append(int(order[distance.argmax()]))
    return torch.tensor(chosen)


def nearest_points(cloud: Tensor, centres: Tensor, size: int) -> Tensor:
    """Indices [G, size] of the points nearest to each centre, ascending, by all distances."""
    squared = torch.zeros(len(centres), len(cloud))
    for axis in range(3):
        squared += (centres[:, None, axis] - cloud[None, :, axis]).square()
    return squared.topk(size, dim=1, largest=False).indices


def interpolate(cloud: Tensor, centres: Tensor, features: Tensor) -> Tensor:
    """Features [C, N] of points from those of centres [C, G], by the three nearest centres.

    The squared distance is expanded (a cancellation, in float32), all of them are sorted.
    """
    squared = -2 * cloud @ centres.T
    squared += cloud.square().sum(1)[:, None]
    squared += centres.square().sum(1)[None, :]
    squared, index = squared.sort(dim=1)
    weights = 1 / (squared[:, :3] + 1e-8)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return (features.T[index[:, :3]] * weights[:, :, None]).sum(dim=1).T


def to_grid(features: Tensor, pixels: Tensor, side: int) -> Tensor:
    """Patches [side * side, C] of features [C, N] that stand at `pixels`; elsewhere is zero."""
    full = torch.zeros(1, len(features), IMAGE_SIDE * IMAGE_SIDE)
    full[:, :, pixels] = features[None]
    full = full.view(1, len(features), IMAGE_SIDE, IMAGE_SIDE)
    pooled = F.adaptive_avg_pool2d(F.avg_pool2d(full, 3, stride=1), (side, side))
    return pooled.reshape(len(features), -1).T


# --- the image's eye ------------------------------------------------------------------------------


def image_features(vit: nn.Module, image: Tensor) -> Tensor:
    """Features [C, 28, 28] of an image [3, 224, 224]: normalised tokens without the first."""
    tokens: Tensor = vit.forward_features(image[None])
    side = IMAGE_SIDE // 8
    return tokens[0, 1:].T.reshape(-1, side, side)


def image_patches(features: Tensor, side: int) -> Tensor:
    """Patches [side * side, C] of features [C, h, w]."""
    return F.adaptive_avg_pool2d(features[None], (side, side))[0].flatten(1).T


# --- scores ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scored:
    """What one bank says of patches: an image score, a map [224, 224], distances and rows."""

    patches: Tensor
    score: Tensor
    pixels: Tensor
    distances: Tensor
    nearest: Tensor


def score_patches(patches: Tensor, bank: Tensor, stage: Stage, *, of: str) -> Scored:
    """Search every patch in `bank` by the whole matrix of distances; both normalised already."""
    with stage(f"search {of}"):
        matrix = torch.cdist(patches, bank)
    with stage(f"score {of}"):
        distances, nearest = matrix.min(dim=1)
        score = reweighted(patches, bank, distances=distances, nearest=nearest)
    with stage("maps"):
        pixels = blurred(upsampled(distances))
    return Scored(patches, score, pixels, distances, nearest)


def reweighted(patches: Tensor, bank: Tensor, *, distances: Tensor, nearest: Tensor) -> Tensor:
    """The largest distance, times how little its row's neighbourhood in the bank explains it."""
    worst = distances.argmax()
    around = torch.cdist(bank[nearest[worst]][None], bank).topk(REWEIGHT, largest=False).indices[0]
    to_neighbours = (patches[worst] - bank[around[1:]]).norm(dim=1)
    scale = torch.sqrt(torch.tensor(float(patches.shape[1])))
    weight = 1 - (distances[worst] / scale).exp() / (to_neighbours / scale).exp().sum()
    return weight * distances[worst]


def upsampled(distances: Tensor) -> Tensor:
    """Distances of the square grid's patches at 224 x 224 pixels, bilinear."""
    side = round(len(distances) ** 0.5)
    image = distances.view(1, 1, side, side)
    size = (IMAGE_SIDE, IMAGE_SIDE)
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)[0, 0]


def blurred(image: Tensor) -> Tensor:
    """PIL's Gaussian blur of bytes that are scaled by the image's own maximum."""
    high = image.max()
    levels = Image.fromarray((image / high).mul(255).byte().numpy())
    smooth = np.asarray(levels.filter(ImageFilter.GaussianBlur(radius=BLUR_RADIUS)))
    return torch.from_numpy(smooth.astype(np.float32)) / 255 * high


def fuse(first: Tensor, second: Tensor, weights: tuple[float, float]) -> Tensor:
    """The linear score of a one-class SVM, whose offset the authors leave out."""
    stacked = torch.stack((first, second), dim=-1)
    return stacked @ torch.tensor(weights)


# --- one part whose other sensor is missing -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Networks:
    """The two eyes and the heads between them, and how clouds are grouped.

    The original interpolates in float32; float64 shows what it means to compute.
    """

    vit: nn.Module
    points: PointTransformer
    heads: FeatureToFeature
    vit_name: str = "vit_base_patch8_224.dino"
    groups: int = GROUPS
    group_size: int = GROUP_SIZE
    interpolation: torch.dtype = torch.float32


@dataclass(frozen=True, slots=True)
class Memory:
    """What was fitted for one main modality: banks, normalisation, and the weights of fusion.

    Args:
        own: Normalised rows of the main modality.
        hallucinated: Normalised rows of the other modality as it was hallucinated.
        mean: Subtracted from every feature.
        std: Divides every feature.
        own_factor: What the main modality's scores count before fusion.
        image_weights: Of the two image scores.
        pixel_weights: Of the two maps.
    """

    own: Tensor
    hallucinated: Tensor
    mean: float
    std: float
    own_factor: float
    image_weights: tuple[float, float]
    pixel_weights: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a part: a score, a map, and what each bank said."""

    score: Tensor
    pixels: Tensor
    own: Scored
    hallucinated: Scored


def point_patches(organised: Tensor, networks: Networks, stage: Stage) -> Tensor:
    """Patches [3136, C] of an organised cloud [224, 224, 3]; background is exactly zero."""
    network = networks.points
    with stage("valid points"):
        cloud, pixels = valid_points(organised)
    with stage("farthest points"):
        centres = cloud[farthest_points(cloud, networks.groups)]
    with stage("nearest points"):
        groups = cloud[nearest_points(cloud, centres, networks.group_size)] - centres[:, None]
    with stage("point encoder"):
        tokens = network.encoder(groups)
    with stage("transformer"):
        features = network.transform(tokens, centres)
    with stage("interpolation"):
        asked = [each.to(networks.interpolation) for each in (cloud, centres, features)]
        features = interpolate(*asked).float()
    with stage("scatter and pool"):
        return to_grid(features, pixels, GRID)


@torch.no_grad()
def judge_cloud(organised: Tensor, *, networks: Networks, memory: Memory, stage: Stage) -> Verdict:
    """A part whose image is missing: PC main, with hallucinated image features."""
    own = point_patches(organised, networks, stage)
    with stage("hallucination"):
        hallucinated = networks.heads.rgb_of(own)
    return judge(own, hallucinated, memory=memory, stage=stage)


@torch.no_grad()
def judge_image(image: Tensor, *, networks: Networks, memory: Memory, stage: Stage) -> Verdict:
    """A part whose cloud is missing: RGB main, with hallucinated point features."""
    with stage("image eye"):
        features = image_features(networks.vit, image)
    with stage("28 to 56"):
        own, fine = image_patches(features, IMAGE_GRID), image_patches(features, GRID)
    with stage("hallucination"):
        hallucinated = networks.heads.xyz_of(fine)
    return judge(own, hallucinated, memory=memory, stage=stage)


def judge(own: Tensor, hallucinated: Tensor, *, memory: Memory, stage: Stage) -> Verdict:
    """Search both banks, and fuse what they say."""
    with stage("normalise"):
        own = (own - memory.mean) / memory.std
        hallucinated = (hallucinated - memory.mean) / memory.std
    first = score_patches(own, memory.own, stage, of="own")
    second = score_patches(hallucinated, memory.hallucinated, stage, of="hallucinated")
    with stage("fusion"):
        factor = memory.own_factor
        score = fuse(factor * first.score, second.score, memory.image_weights)
        pixels = fuse(factor * first.pixels, second.pixels, memory.pixel_weights)
    return Verdict(score, pixels, first, second)
