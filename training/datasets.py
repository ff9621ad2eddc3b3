"""Parts to learn from: where they come from, and which role each one has for ever.

Roles are a keyed hash of the lot alone. Parts of one lot are alike, so they never stand on both
sides of a comparison; and as the role depends on nothing but the lot's name, it is the same in
every bundle of a whole ancestry. Calibration also leaves out parts that were not chosen at random:
good parts picked by suspicion score high, and with half of them a promised 5 % becomes 0.5 %, so
defects pass unseen. Of many lots 28 % fit (banks, heads), 12 % tune (scales, every
choice), 50 % calibrate (read once, all else frozen) and 10 % gate (compare bundles): calibration
is the largest, as it decides which promise can be made.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

import structlog

from connectors.errors import Poison
from connectors.folder import FolderPart, iter_folder
from connectors.line import Line, Modality
from connectors.messages import PROCESS_ITEM
from inference.preprocess import PNG, TIFF, Capture, checked, decode

ROLE_KEY: Final = "hololine-roles-1"
"""Changing it would mix calibration parts of old bundles into the fits of new ones."""

_MEDIA_TYPES: Final = {".png": PNG, ".tif": TIFF, ".tiff": TIFF}
_log = structlog.get_logger(__name__)


class Role(StrEnum):
    """What a part may be used for."""

    FIT = "fit"
    TUNE = "tune"
    CALIBRATE = "calibrate"
    GATE = "gate"


_SHARES: Final = ((Role.FIT, 0.28), (Role.TUNE, 0.12), (Role.CALIBRATE, 0.50), (Role.GATE, 0.10))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSample:
    """One characterised part: its captures, and what is known of it."""

    key: str
    product: str
    lot: str
    captures: Mapping[str, Capture]
    label: Literal["good", "defective"] | None
    at_random: bool = True
    """Whether it was chosen without regard to how it looked."""
    kind: str | None = None
    """What is wrong with it, in the words of who found it."""


def role_of(lot: str, *, key: str = ROLE_KEY) -> Role:
    """The role of every part of `lot`, now and in every later bundle."""
    mac = hmac.new(key.encode(), lot.encode(), hashlib.sha256).digest()
    left = int.from_bytes(mac[:8]) / 2**64
    for role, share in _SHARES:
        if left < share:
            return role
        left -= share
    return Role.GATE


def roles(lots: Iterable[str], *, key: str = ROLE_KEY) -> dict[str, Role]:
    """The role of each lot."""
    return {lot: role_of(lot, key=key) for lot in lots}


def by_role(samples: Sequence[PartSample], *, key: str = ROLE_KEY) -> dict[Role, list[PartSample]]:
    """The samples of each role, in their order; calibrate has only those chosen at random."""
    parted: dict[Role, list[PartSample]] = {role: [] for role in Role}
    for sample in samples:
        role = role_of(sample.lot, key=key)
        if sample.at_random or role is not Role.CALIBRATE:
            parted[role].append(sample)
    return parted


def scored_modalities(line: Line, product: str) -> tuple[str, ...]:
    """The modalities that a bundle of `product` covers: what its policy expects, sorted.

    Raises:
        Poison: The line has no such product, or it expects no modality.
    """
    if product not in line.products:
        raise Poison("product", f"{product!r} is none of {', '.join(sorted(line.products))}")
    expected = set(line.products[product].expected) - {PROCESS_ITEM}
    if not expected:
        raise Poison(f"products.{product}.expected", "no modality is expected: nothing to score")
    return tuple(sorted(expected))


def folder_samples(
    root: Path, *, product: str, modalities: Mapping[str, Modality], split: str
) -> Iterator[PartSample]:
    """Parts of one split of a folder ``<split>/<label>/<part>/<modality>.*``, one by one.

    The label ``good`` is good, any other a defect. A folder tells no lots: each part is its own. A
    part with a capture that cannot be read is named in the log and skipped.

    Args:
        root: The folder.
        product: What the parts are.
        modalities: Which captures to read, and what each must be.
        split: Such as ``train``.
    """
    for part in iter_folder(root):
        if part.split != split:
            continue
        try:
            captures = _read_part(part, modalities)
        except Poison as error:
            _log.warning("folder_part_skipped", part=part.part_id, reason=str(error))
            continue
        yield PartSample(
            key=part.part_id,
            product=product,
            lot=part.part_id,
            captures=captures,
            label="good" if part.label == "good" else "defective",
            kind=None if part.label == "good" else part.label,
        )


def _read_part(part: FolderPart, modalities: Mapping[str, Modality]) -> dict[str, Capture]:
    captures = {}
    for name in sorted(part.captures.keys() & modalities.keys()):
        path = part.captures[name]
        media_type = _MEDIA_TYPES.get(path.suffix.lower())
        if media_type is None:
            raise Poison(name, f"{path.name}: {', '.join(_MEDIA_TYPES)} are read")
        captures[name] = checked(decode(path.read_bytes(), media_type=media_type), modalities[name])
    return captures
