"""The paper profile on a scene of the benchmark: same weights, same banks, by its public parts.

Stages are timed from outside, in the order in which `PaperModel` takes them; maps are blurred as
the authors blur theirs. What a comparison needs besides (patches at every place, in the authors'
units) is made afterwards and not timed.
"""

from dataclasses import dataclass
from typing import Final, Self

import authors_formula as formula
import paper_scene
import torch
from torch import Tensor

from inference.model.bank import Bank
from inference.model.dense import linear
from inference.model.paper.eyes import CloudEye, ImageEye
from inference.model.paper.fusion import LinearFusion
from inference.model.paper.heads import FeatureToFeature, from_authors
from inference.model.paper.model import Hallucinator, Memory, PaperModel, Seen
from inference.model.paper.patches import Patches
from inference.model.paper.point_mae import PointMae
from inference.model.paper.points import Clouds, farthest_points, nearest_points
from inference.model.paper.pooling import pooling_operator
from inference.model.paper.score import blurred_in_bytes, pixel_map
from inference.model.paper.vit import VisionTransformer
from inference.model.search import Nearest

OTHER: Final = {"cloud": "image", "image": "cloud"}


def make_model(scene: paper_scene.Scene) -> PaperModel:
    """The scene's networks and banks as a model of the profile; banks are laid out for search."""
    networks = scene.networks
    points = PointMae(
        networks.points.state_dict(), groups=networks.groups, group_size=networks.group_size
    )
    eyes = {
        "cloud": CloudEye(points),
        "image": ImageEye(VisionTransformer(networks.vit.state_dict(), name=networks.vit_name)),
    }
    fitted = {"cloud": scene.cloud, "image": scene.image}
    return PaperModel(
        eyes=eyes,
        memories={name: _memory(each.own, each) for name, each in fitted.items()},
        hallucinators={
            (name, OTHER[name]): Hallucinator(
                kind="f2f", head=_head(networks, source=name), eye=eyes[OTHER[name]]
            )
            for name in fitted
        },
        hallucinated={
            (name, OTHER[name]): _memory(each.hallucinated, each) for name, each in fitted.items()
        },
        fusions={name: _fusion(name, each) for name, each in fitted.items()},
    )


def _memory(rows: Tensor, fitted: formula.Memory) -> Memory:
    """A bank of features as they come: the authors' rows are normalised."""
    return Memory(bank=Bank.of(rows * fitted.std + fitted.mean), spread=fitted.std)


def _head(networks: formula.Networks, *, source: str) -> FeatureToFeature:
    name = {"cloud": "xyz", "image": "rgb"}[source]
    state = from_authors("f2f", networks.heads.state_dict(), source=name)
    head = FeatureToFeature(
        source_dim=state["fc1.weight"].shape[1],
        target_dim=state["fc3.weight"].shape[0],
        final_gelu=True,
    )
    head.load_state_dict(state)
    return head.eval()


def _fusion(name: str, fitted: formula.Memory) -> LinearFusion:
    def weights(own: float, hallucinated: float) -> dict[str, float]:
        return {name: fitted.own_factor * own, OTHER[name]: hallucinated}

    return LinearFusion(
        image_weights=weights(*fitted.image_weights), pixel_weights=weights(*fitted.pixel_weights)
    )


@dataclass(frozen=True, slots=True)
class Searched:
    """One bank's answer about one part, as the profile has it."""

    patches: Patches
    found: Nearest
    score: Tensor
    distances: Tensor
    pixels: Tensor

    def comparable(self, fitted: formula.Memory) -> formula.Scored:
        """The same in the authors' words: one patch for each place, normalised."""
        return formula.Scored(
            patches=(self.patches.dense() - fitted.mean) / fitted.std,
            score=self.score,
            pixels=self.pixels,
            distances=self.distances,
            nearest=self.found.rows[:, 0][self.patches.place],
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """The profile's answer about one part."""

    score: Tensor
    pixels: Tensor
    own: Searched
    hallucinated: Searched
    fitted: formula.Memory

    @property
    def undecided(self) -> dict[str, float]:
        """Share of different patches that low precision could not decide, by bank."""
        found = {"own": self.own.found, "hallucinated": self.hallucinated.found}
        return {name: each.fallbacks / len(each.rows) for name, each in found.items()}

    def verdict(self) -> formula.Verdict:
        """The same in the authors' words."""
        own, hallucinated = (each.comparable(self.fitted) for each in (self.own, self.hallucinated))
        return formula.Verdict(self.score, self.pixels, own, hallucinated)


@dataclass(frozen=True, slots=True)
class Ours:
    """The model, and what it is to judge."""

    model: PaperModel
    scene: paper_scene.Scene

    @classmethod
    def of(cls, scene: paper_scene.Scene) -> Self:
        """The profile as the scene fits it."""
        return cls(make_model(scene), scene)

    @torch.no_grad()
    def judge(self, present: str, stage: formula.Stage) -> Judged:
        """Judge the part by one of its sensors."""
        absent, fitted = OTHER[present], getattr(self.scene, present)
        inputs = self.inputs(present)
        with stage(f"{present} eye"):
            seen = Seen(pixels=inputs[0], patches=self.model.eyes[present].see(inputs)[0])
        with stage("hallucination"):
            suggested = self.model.hallucinators[present, absent].hallucinate(seen)
        own = _searched(self.model.memories[present], seen.patches, stage, of="own")
        memory = self.model.hallucinated[present, absent]
        hallucinated = _searched(memory, suggested, stage, of="hallucinated")
        with stage("fusion"):
            fusion = self.model.fusions[present]
            score = fusion.image({present: own.score, absent: hallucinated.score})
            pixels = fusion.pixels({present: own.pixels, absent: hallucinated.pixels})
        return Judged(score, pixels, own, hallucinated, fitted)

    def inputs(self, present: str) -> Tensor:
        """The part as a batch of one, channels first."""
        part = self.scene.part
        return (part.image if present == "image" else part.cloud.permute(2, 0, 1))[None]

    @torch.no_grad()
    def look(self, stage: formula.Stage) -> Tensor:
        """Where the time of the cloud's eye goes: its steps, one by one; patches with points."""
        eye = self.model.eyes["cloud"]
        assert isinstance(eye, CloudEye)
        with stage("valid points"):
            clouds = Clouds.of(self.inputs("cloud").permute(0, 2, 3, 1))
        with stage("farthest points"):
            chosen = farthest_points(clouds, eye.network.groups)
        with stage("nearest points"):
            nearest = nearest_points(clouds, chosen, eye.network.group_size)[0]
        centres = clouds.points[0][chosen[0]]
        with stage("point encoder"):
            tokens = eye.network.encoder(clouds.points[0][nearest] - centres[:, None])
        with stage("transformer"):
            features = eye.network.transform(tokens[None], centres[None])[0]
        with stage("interpolation"):
            matrix = pooling_operator(clouds, chosen)[0]
        with stage("scatter and pool"):
            foreground = matrix.any(1)
            values = linear(matrix[foreground], features.t().contiguous())
            return Patches.on_foreground(values, foreground).values


def _searched(memory: Memory, patches: Patches, stage: formula.Stage, *, of: str) -> Searched:
    with stage(f"search {of}"):
        (found,), worst = memory.looked_up([patches])
        distances = found.distances[:, 0][patches.place] / memory.spread
    with stage(f"score {of}"):
        score = worst.scores(spread=memory.spread)[0]
    with stage("maps"):
        pixels = blurred_in_bytes(pixel_map(distances))
    return Searched(patches, found, score, distances, pixels)
