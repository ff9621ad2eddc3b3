"""A folder of bundles and, per product, which of them judges.

``bundles/<digest>/`` holds content-addressed, immutable bundles; ``champions/<product>.json`` the
pointer, what it pointed to before, and who moved it when. Every write is atomic, and promoters take
turns by a lock on the folder, so readers need none.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final
from uuid import uuid4

from connectors.clock import SystemClock
from connectors.errors import Poison, Unavailable

if TYPE_CHECKING:  # torch comes with it, and most readers of the registry need none
    from inference.bundle import Bundle, Manifest

_LOCK_WAIT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move of a product's champion pointer."""

    digest: str
    at_ns: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """A product's champion, the digests a rollback goes back to, and every move so far."""

    product: str
    digest: str
    before: tuple[str, ...]
    history: tuple[Move, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One bundle of the registry."""

    digest: str
    product: str
    champion: bool


class BundleRegistry:
    """Bundles by digest, and the champion of each product.

    Args:
        root: The folder; it is made when missing, and may be shared between machines.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._bundles = root / "bundles"
        self._champions = root / "champions"
        self._bundles.mkdir(parents=True, exist_ok=True)
        self._champions.mkdir(parents=True, exist_ok=True)

    def add(self, path: Path) -> str:
        """The bundle at `path` is in the registry (adding it again is harmless); its digest.

        Raises:
            Poison: `path` holds no whole bundle.
        """
        from inference.bundle import Bundle

        digest = Bundle.load(path).digest
        target = self._bundles / digest
        if target.exists():
            return digest
        copy = self._bundles / f".{digest}.{uuid4().hex}"
        shutil.copytree(path, copy)
        try:
            copy.rename(target)
        except OSError:  # another process added the same bundle in between
            shutil.rmtree(copy)
            if not target.exists():
                raise
        return digest

    def path(self, digest: str) -> Path:
        """Where the bundle lies.

        Raises:
            Poison: No bundle has this digest.
        """
        target = self._bundles / digest
        if not digest.isalnum() or not target.is_dir():
            raise Poison(
                "digest",
                f"{digest!r} is no bundle of the registry at {self.root}; "
                "`hololine model ls` lists them",
            )
        return target

    def find(self, prefix: str) -> str:
        """The one digest that starts with `prefix`, so that people need not type all of it.

        Raises:
            Poison: None or several do.
        """
        found = [digest for digest in self._digests() if digest.startswith(prefix)]
        if len(found) != 1:
            problem = "matches no bundle" if not found else f"matches {len(found)} bundles"
            raise Poison("digest", f"{prefix!r} {problem}; `hololine model ls` lists them")
        return found[0]

    def ls(self) -> list[Entry]:
        """Every bundle, by product and then digest."""
        champions = self.champions()
        products = {digest: self.show(digest).product for digest in self._digests()}
        return [
            Entry(digest=digest, product=product, champion=champions.get(product) == digest)
            for digest, product in sorted(products.items(), key=lambda item: (item[1], item[0]))
        ]

    def show(self, digest: str) -> "Manifest":
        """What the bundle is, where it comes from and what it reached.

        Raises:
            Poison: No bundle has this digest.
        """
        from inference.bundle import MANIFEST, Manifest

        return Manifest.from_bytes((self.path(digest) / MANIFEST).read_bytes())

    def load(self, digest: str) -> "Bundle":
        """The bundle, loaded and verified.

        Raises:
            Poison: No bundle has this digest, or its files are not what the digest says.
        """
        from inference.bundle import Bundle

        return Bundle.load(self.path(digest))

    def champion(self, product: str) -> Champion | None:
        """The product's champion, or None before the first promotion."""
        file = self._champions / f"{product}.json"
        try:
            data: dict[str, Any] = json.loads(file.read_bytes())
        except FileNotFoundError:
            return None
        return Champion(
            product=data["product"],
            digest=data["digest"],
            before=tuple(data["before"]),
            history=tuple(Move(**move) for move in data["history"]),
        )

    def champions(self) -> dict[str, str]:
        """The champion's digest of every product that has one."""
        names = sorted(file.stem for file in self._champions.glob("*.json"))
        found = [self.champion(name) for name in names]
        return {c.product: c.digest for c in found if c is not None}

    def promote(self, product: str, digest: str, *, why: str, at_ns: int | None = None) -> None:
        """`digest` is the product's champion from now on; promoting the champion changes nothing.

        Args:
            product: The product it judges.
            digest: A bundle of this registry.
            why: One line for the history.
            at_ns: When it was decided, wall time; now by default.

        Raises:
            Poison: No such bundle, or it was fitted for another product.
            Unavailable: Another promoter held the registry for too long.
        """
        fitted_for = self.load(digest).manifest.product
        if fitted_for != product:
            raise Poison(
                "product",
                f"bundle {digest[:12]} was fitted for {fitted_for!r}, not for {product!r}; "
                f"fit one with `hololine model fit --product {product}`",
            )
        with folder_lock(self.root / "lock"):
            old = self.champion(product)
            if old is not None and old.digest == digest:
                return
            before = () if old is None else (*old.before, old.digest)
            self._move(product, digest, before=before, old=old, why=why, at_ns=at_ns)

    def rollback(self, product: str, *, why: str = "rollback", at_ns: int | None = None) -> str:
        """The champion before this one judges again, and the step is recorded; its digest.

        Raises:
            Poison: There is nothing to go back to.
            Unavailable: Another promoter held the registry for too long.
        """
        with folder_lock(self.root / "lock"):
            old = self.champion(product)
            if old is None or not old.before:
                raise Poison(
                    "product",
                    f"{product!r} has no earlier champion to go back to; "
                    "promote one with `hololine model promote`",
                )
            self._move(
                product, old.before[-1], before=old.before[:-1], old=old, why=why, at_ns=at_ns
            )
            return old.before[-1]

    def _move(
        self,
        product: str,
        digest: str,
        *,
        before: tuple[str, ...],
        old: Champion | None,
        why: str,
        at_ns: int | None,
    ) -> None:
        when = SystemClock().now_ns() if at_ns is None else at_ns
        history = () if old is None else old.history
        champion = Champion(
            product=product,
            digest=digest,
            before=before,
            history=(*history, Move(digest=digest, at_ns=when, why=why)),
        )
        _write_atomically(self._champions / f"{product}.json", asdict(champion))

    def _digests(self) -> list[str]:
        return sorted(p.name for p in self._bundles.iterdir() if not p.name.startswith("."))


@contextmanager
def folder_lock(file: Path) -> Iterator[None]:
    """Whoever holds `file` works alone, on every process that shares the folder.

    Raises:
        Unavailable: Another process held it for too long.
    """
    with file.open("a") as held:
        deadline_s = time.monotonic() + _LOCK_WAIT_S
        while not _locked(held):
            if time.monotonic() > deadline_s:
                raise Unavailable(
                    f"{file} is held by another process for over {_LOCK_WAIT_S:.0f} s; "
                    "try again when it is done"
                )
            time.sleep(0.05)
        yield


def _locked(held: IO[str]) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_atomically(file: Path, data: dict[str, Any]) -> None:
    part = file.with_name(f".{file.name}.{uuid4().hex}")
    with part.open("w") as out:
        json.dump(data, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    part.replace(file)
