"""A folder of real captures, part by part: ``<split>/<label>/<part>/<modality>.<suffix>``.

Ground truth may lie beside a capture as ``<modality>_mask.png``. What does not fit is named in the
log and skipped, never guessed at; the last log entry says how much that was.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from pydantic import TypeAdapter, ValidationError

from connectors.errors import Poison
from connectors.messages import Label, PartId, Slug

_MASK_SUFFIX: Final = "_mask.png"
_SLUG: Final = TypeAdapter[str](Slug)
_LABEL: Final = TypeAdapter[str](Label)
_PART_ID: Final = TypeAdapter[str](PartId)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPart:
    """One part and its captures; `part_id` is ``split/label/part``, unique in the folder."""

    part_id: str
    split: str
    label: str
    captures: Mapping[str, Path]
    masks: Mapping[str, Path]


def iter_folder(root: Path) -> Iterator[FolderPart]:
    """Every part below `root` that has a capture, in the order of its names.

    Files that are empty, stray, claim a modality twice or carry a name that no message can hold are
    logged as ``folder_entry_skipped``; ``folder_read`` ends the walk with the counts.

    Raises:
        Poison: `root` is no folder.
    """
    if not root.is_dir():
        raise Poison("folder", f"{root} is no folder; it should hold <split>/<label>/<part>/")
    walk = _Walk(root)
    parts = 0
    for folder in walk.part_folders():
        part = walk.part(folder)
        if part is not None:
            parts += 1
            yield part
    _log.info("folder_read", root=str(root), parts=parts, skipped=walk.skipped)


def folder_version(root: Path) -> str:
    """A digest of the names, sizes and times of all files: changed captures are other data."""
    digest = hashlib.sha256()
    for path in sorted(each for each in root.rglob("*") if each.is_file()):
        stat = path.stat()
        digest.update(f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


@dataclass(slots=True)
class _Walk:
    """One walk over a folder, and how many entries it passed over."""

    root: Path
    skipped: int = field(default=0)

    def part_folders(self) -> Iterator[Path]:
        for split in self._folders(self.root):
            for label in self._folders(split):
                yield from self._folders(label)

    def _folders(self, parent: Path) -> Iterator[Path]:
        for path in sorted(parent.iterdir()):
            if path.is_dir():
                yield path
            else:
                self._skip(path, "stray: captures lie in <split>/<label>/<part>/")

    def part(self, folder: Path) -> FolderPart | None:
        """The part of one folder; None (and named) if there is nothing to stream."""
        split, label, _ = names = folder.relative_to(self.root).parts
        part_id = "/".join(names)
        if not (_fits(_PART_ID, part_id) and _fits(_LABEL, label)):
            self._skip(folder, "its name is no part id: printable ASCII, no blanks, 128 at most")
            return None
        captures: dict[str, Path] = {}
        masks: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            is_mask = path.name.endswith(_MASK_SUFFIX)
            modality = path.name.removesuffix(_MASK_SUFFIX) if is_mask else path.stem
            known = masks if is_mask else captures
            reason = _oddity(path, modality, known)
            if reason is None:
                known[modality] = path
            else:
                self._skip(path, reason)
        if not captures:
            self._skip(folder, "no capture in it")
            return None
        return FolderPart(part_id=part_id, split=split, label=label, captures=captures, masks=masks)

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped += 1
        _log.warning("folder_entry_skipped", path=str(path), reason=reason)


def _oddity(path: Path, modality: str, known: Mapping[str, Path]) -> str | None:
    """Why `path` is not taken, if it is not."""
    if not path.is_file():
        return "not a file"
    if not _fits(_SLUG, modality):
        return "its name is no modality: lower case, digits, _ and -"
    if modality in known:
        return f"{known[modality].name} is the same modality; keep one of them"
    if path.stat().st_size == 0:
        return "empty"
    return None


def _fits(kind: TypeAdapter[str], text: str) -> bool:
    try:
        kind.validate_python(text)
    except ValidationError:
        return False
    return True
