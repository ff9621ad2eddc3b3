"""How fast the nearest rows of a bank are found, beside others that search, and how exactly.

    python tests/benchmarks/search_rivals.py [--rows 76518] [--dim 768] [--queries 1474]
        [--repeats 3] [--bank gaussian] [--json]

Rivals are torch's matrix of distances and, where `faiss` can be imported (the project does not
need it), its exact flat index and an approximate one. They search by turns, on the same threads.
Each is held to distances in float64, of some of the queries: how often its row is the nearest, how
much farther the row is that it names, and how far off the distance is that it tells. The queries
are different patches of a synthetic cloud; rows of the bank "features" are blends of other parts'
patches, those of "gaussian" are independent draws, as are its queries: `paper_scene.py`.

faiss multiplies by OpenBLAS: a machine that sets OPENBLAS_CORETYPE should unset it here.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Callable
from importlib.util import find_spec
from time import perf_counter
from typing import Any, Final

import paper_scene
import paper_speed
import torch
from torch import Tensor

from inference.model.bank import Bank
from inference.model.paper.eyes import CloudEye
from inference.model.paper.point_mae import PointMae

Report = dict[str, Any]
Found = tuple[Tensor, Tensor]
"""Of each query: the distance that is told, and the row."""
Search = Callable[[Tensor], Found]

DIM: Final = 768
"""Features of the eye of clouds."""
SAMPLE: Final = 128
"""Queries that are also searched in float64."""
PROBES: Final = 16
"""Cells that the approximate index looks into."""
_BLOCK: Final = 4096


def ours(rows: Tensor) -> Search:
    """The bank of the `paper` profile."""
    bank = Bank.of(rows)

    def search(queries: Tensor) -> Found:
        found = bank.nearest(queries)
        return found.distances[:, 0], found.rows[:, 0]

    return search


def torch_cdist(rows: Tensor) -> Search:
    """The whole matrix of distances, and its minima."""
    return lambda queries: tuple(torch.cdist(queries, rows).min(1))


def faiss_flat(rows: Tensor) -> Search:
    """Every row looked at."""
    import faiss

    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows.numpy())
    return _of_faiss(index)


def faiss_ivf(rows: Tensor) -> Search:
    """Rows in 4 sqrt(rows) cells, as faiss advises; the nearest `PROBES` are looked into."""
    import faiss

    dim = rows.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, round(4 * len(rows) ** 0.5))
    index.cp.min_points_per_centroid = 1
    index.train(rows.numpy())
    index.add(rows.numpy())
    index.nprobe = PROBES
    return _of_faiss(index)


def _of_faiss(index: Any) -> Search:
    def search(queries: Tensor) -> Found:
        squared, rows = index.search(queries.numpy(), 1)
        return torch.from_numpy(squared[:, 0]).clamp(min=0).sqrt(), torch.from_numpy(rows[:, 0])

    return search


RIVALS: Final = {
    "ours": ours,
    "torch cdist": torch_cdist,
    "faiss flat": faiss_flat,
    "faiss ivf": faiss_ivf,
}


def gaussian(*, rows: int, dim: int, queries: int) -> Found:
    """Independent rows and queries, all nearly equally far apart."""
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(rows, dim, generator=generator),
        torch.randn(queries, dim, generator=generator),
    )


@torch.no_grad()
def features(size: paper_scene.Size, *, rows: int, queries: int) -> Found:
    """Rows as a bank of clouds has them, and patches of a part that is not in it."""
    networks = paper_scene.make_networks(
        dataclasses.replace(size, vit_name=paper_scene.QUICK.vit_name)  # no image is looked at
    )
    weights = networks.points.state_dict()
    eye = CloudEye(PointMae(weights, groups=size.groups, group_size=size.group_size))
    clouds = [paper_scene.make_part(seed).cloud for seed in range(size.nominal_parts + 1)]
    asked, *nominal = [eye.see(cloud.permute(2, 0, 1)[None])[0] for cloud in clouds]
    pool = torch.stack([each.dense() for each in nominal])
    mean, std = pool.mean(), pool.std()  # the authors normalise too
    different = asked.values[1:]  # the background lies in the bank as it is
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(different), generator=generator)[:queries]
    bank = paper_scene.make_rows([*(pool - mean) / std], rows, kind="features", seed=1)
    return bank, (different[chosen] - mean) / std


def run(rows: Tensor, queries: Tensor, *, repeats: int) -> Report:
    """Measure all rivals there are on this bank, and hold them to float64."""
    absent = [name for name in RIVALS if name.startswith("faiss") and find_spec("faiss") is None]
    build_ms, sides = {}, {}
    for name in (name for name in RIVALS if name not in absent):
        begun = perf_counter()
        sides[name] = RIVALS[name](rows)
        build_ms[name] = 1000 * (perf_counter() - begun)
    load = os.getloadavg()[0]
    taken, said = paper_speed.measure(
        {name: lambda _, search=search: search(queries) for name, search in sides.items()}, repeats
    )
    step = max(1, len(queries) // SAMPLE)
    exact = _exact(rows, queries[::step])
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": load,
        "rows": len(rows),
        "dim": rows.shape[1],
        "queries": len(queries),
        "sample": len(queries[::step]),
        "repeats": repeats,
        "undecided": int(Bank.of(rows).nearest(queries).undecided.sum()),
        "not importable": absent,
        "rivals": {
            name: {
                "build_ms": build_ms[name],
                **{clock: taken[name][clock]["total"] for clock in ("wall", "processors")},
                "same_row_as_ours": _share(said[name][1], said["ours"][1]),
                **_compared([each[::step] for each in said[name]], exact),
            }
            for name in sides
        },
    }


def _exact(rows: Tensor, queries: Tensor) -> Tensor:
    """All distances in float64, by differences."""
    asked = queries.double()
    blocks = [
        torch.cdist(asked, each.double(), compute_mode="donot_use_mm_for_euclid_dist")
        for each in rows.split(_BLOCK)
    ]
    return torch.cat(blocks, dim=1)


def _compared(said: list[Tensor], exact: Tensor) -> dict[str, float]:
    """How a rival's answers compare with the nearest rows by `exact`."""
    told, row = said
    nearest = exact.min(1)
    named = exact.gather(1, row[:, None])[:, 0]
    return {
        "nearest_row": _share(row, nearest.indices),
        "row_farther_max": float((named / nearest.values - 1).max()),
        "distance_off_max": float((told / nearest.values - 1).abs().max()),
    }


def _share(one: Tensor, other: Tensor) -> float:
    return float((one == other).double().mean())


def as_text(report: Report) -> str:
    """The report as a table."""
    about = (
        f"torch {report['torch']}, {report['threads']} threads, load {report['load']:.1f}; bank of "
        f"{report['bank']}, {report['rows']} x {report['dim']}; {report['queries']} queries, "
        f"{report['sample']} of them in float64; {report['repeats']} repeats"
    )
    head = (
        f"{'':<12}{'search ms':>26}{'processors':>12}{'x ours':>8}{'built ms':>10}"
        f"{'as ours':>9}{'nearest':>9}{'farther':>9}{'told off':>10}"
    )
    lines = [about, head]
    ours_ms = statistics.median(report["rivals"]["ours"]["wall"])
    for name, each in report["rivals"].items():
        wall = each["wall"]
        median = statistics.median(wall)
        spread = f"{median:.0f} ({min(wall):.0f} - {max(wall):.0f})"
        lines.append(
            f"{name:<12}{spread:>26}{statistics.median(each['processors']):>12.0f}"
            f"{median / ours_ms:>8.2f}{each['build_ms']:>10.0f}{each['same_row_as_ours']:>9.2%}"
            f"{each['nearest_row']:>9.2%}{each['row_farther_max']:>9.1g}"
            f"{each['distance_off_max']:>10.1g}"
        )
    lines.append(f"searched again in float32 by ours: {report['undecided']} queries")
    lines.append(f"not importable: {', '.join(report['not importable']) or 'none'}")
    return "\n".join(lines)


def main() -> None:
    """Measure as the command line says, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=paper_scene.BANK_ROWS)
    parser.add_argument("--dim", type=int, default=DIM, help="of the bank gaussian alone")
    parser.add_argument("--queries", type=int, default=1474, help="at most, for features")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bank", choices=("features", "gaussian"), default="features")
    parser.add_argument("--json", action="store_true", help="print everything measured as JSON")
    asked = parser.parse_args()
    if asked.bank == "features" and asked.dim != DIM:
        parser.error(f"features of the eye have {DIM} dimensions; --dim is for --bank gaussian")
    if asked.bank == "features":
        rows, queries = features(paper_scene.Size(), rows=asked.rows, queries=asked.queries)
    else:
        rows, queries = gaussian(rows=asked.rows, dim=asked.dim, queries=asked.queries)
    report = {"bank": asked.bank} | run(rows, queries, repeats=asked.repeats)
    sys.stdout.write((json.dumps(report, indent=1) if asked.json else as_text(report)) + "\n")


if __name__ == "__main__":
    main()
