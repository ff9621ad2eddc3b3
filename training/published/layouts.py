"""Which layouts are read, by the names that the command line knows."""

from pathlib import Path

from connectors.errors import Poison
from training.published.eyecandies import Eyecandies
from training.published.mvtec3d import MVTec3D
from training.published.samples import Published


def published(name: str, root: Path) -> Published:
    """The data set below `root`, read as `name`.

    Raises:
        Poison: No such layout, or the folder does not have it.
    """
    if not root.is_dir():
        raise Poison("root", f"{root} is no folder")
    if name == "mvtec3d":
        return MVTec3D(root)
    if name == "eyecandies":
        return Eyecandies(root)
    raise Poison("dataset", f"{name!r} is none of eyecandies, mvtec3d")
