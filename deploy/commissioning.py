"""Before the first verdict: each product's first bundle, fitted on good parts of the virtual plant.

Products are fitted in processes of their own, beside the servers that start meanwhile. What was
fitted is kept under a fingerprint of all that decides it, so the second demo begins at once.
"""

import json
import multiprocessing
import queue
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from connectors.line import Line
from connectors.messages import PayloadRef
from deploy.fingerprint import fingerprint
from deploy.fitting import COMMISSIONING_SEED
from training.tables import CharacterisedPart

_PROCESSES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Commissioned:
    """A product that is ready for its first part."""

    product: str
    bundle: Path
    parts: list[CharacterisedPart]
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What one process is to fit; everything in it can be pickled."""

    line: bytes
    product: str
    parts: int
    folder: Path
    payloads_url: str


class Commissioning:
    """Fits every product of a line; use it as a context manager.

    Args:
        line: The line.
        parts: Good parts per product.
        folder: Where bundles are kept between demos.
        payloads_url: Where the parts' captures go: the first night learns from them too.
    """

    def __init__(self, line: Line, *, parts: int, folder: Path, payloads_url: str) -> None:
        self._kept = folder / fingerprint(line.to_bytes(), str(parts).encode())
        self._orders = [
            _Order(
                line=line.to_bytes(),
                product=product,
                parts=parts,
                folder=self._kept / product,
                payloads_url=payloads_url,
            )
            for product in line.products
        ]
        self._running: dict[str, Future[None]] = {}
        self._progress: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        """Fitting has begun for every product that is not kept from before."""
        spawn = multiprocessing.get_context("spawn")
        self._manager = spawn.Manager()
        self._told = self._manager.Queue()
        self._pool = ProcessPoolExecutor(_PROCESSES, mp_context=spawn)
        for order in self._orders:
            if not (order.folder / "parts.json").exists():
                self._running[order.product] = self._pool.submit(_commission, order, self._told)
        return self

    def __exit__(self, *_: object) -> None:
        """See `close`."""
        self.close()

    def close(self) -> None:
        """No process of ours is left; again is harmless."""
        for process in (self._pool._processes or {}).values():  # noqa: SLF001 - no public way
            process.terminate()
        self._pool.shutdown(cancel_futures=True)
        self._manager.shutdown()

    def progress(self) -> dict[str, tuple[str, float]]:
        """Stage and share done (0 to 1) of every product that is being fitted."""
        while True:
            try:
                product, stage, share = self._told.get_nowait()
            except queue.Empty:
                return self._progress
            self._progress[product] = (stage, share)

    def done(self) -> bool:
        """Whether every product is ready.

        Raises:
            Poison: A product could not be fitted.
        """
        for future in self._running.values():
            if future.done():
                future.result()
        return all(future.done() for future in self._running.values())

    def products(self) -> Iterator[Commissioned]:
        """Every product, once `done`."""
        for order in self._orders:
            kept = json.loads((order.folder / "parts.json").read_text(encoding="utf-8"))
            yield Commissioned(
                product=order.product,
                bundle=order.folder / kept["bundle"],
                parts=[_part_of(row) for row in kept["parts"]],
                cached=order.product not in self._running,
            )


def _commission(order: _Order, told: "queue.Queue[tuple[str, str, float]]") -> None:
    """Make the parts, store their captures, fit, and write ``parts.json`` last."""
    import torch

    from connectors.payloads import open_store
    from connectors.simulator.commissioning import commissioning_parts
    from connectors.simulator.encoding import encode
    from inference.preprocess import checked, decode
    from training.datasets import PartSample, scored_modalities
    from training.fit import fit_product

    torch.set_num_threads(1)
    line = Line.from_bytes(order.line)
    store = open_store(order.payloads_url)
    shutil.rmtree(order.folder, ignore_errors=True)
    order.folder.mkdir(parents=True)
    samples, rows = [], []
    made = commissioning_parts(
        line=line, product=order.product, count=order.parts, seed=COMMISSIONING_SEED
    )
    for number, (key, part) in enumerate(made, start=1):
        captures, refs = {}, {}
        for name in scored_modalities(line, order.product):
            data, media_type, units, shape = encode(name, part.captures[name])
            ref = store.put(data, media_type=media_type, units=units, shape=shape)
            refs[name] = ref.model_dump(mode="json")
            decoded = decode(data, media_type=media_type)
            captures[name] = checked(decoded, line.modalities[name])
        samples.append(
            PartSample(
                key=str(key),
                product=order.product,
                lot=part.lot,
                captures=captures,
                label="good",
            )
        )
        rows.append({"part": str(key), "product": order.product, "lot": part.lot, "captures": refs})
        told.put((order.product, "making parts", number / order.parts))
    bundle = fit_product(
        samples,
        product=order.product,
        line=line,
        out=order.folder,
        progress=lambda stage, share: told.put((order.product, stage, share)),
    )
    kept = json.dumps({"bundle": bundle.name, "parts": rows})
    (order.folder / "parts.json").write_text(kept, encoding="utf-8")


def _part_of(row: dict[str, Any]) -> CharacterisedPart:
    captures = {
        n: PayloadRef.model_validate_json(json.dumps(r)) for n, r in row["captures"].items()
    }
    return CharacterisedPart(
        part=row["part"],
        product=row["product"],
        lot=row["lot"],
        finding="good",
        defect_kind=None,
        captures=captures,
    )
