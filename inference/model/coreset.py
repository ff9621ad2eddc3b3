"""Choose the few rows that cover all of them best: greedy k-centre.

Source: Sener and Savarese, "Active learning for convolutional neural networks", ICLR 2018; the
random projection as in PatchCore (Roth et al., CVPR 2022) and CMDIAD (arXiv:2405.13571), after Li,
Hastie and Church, "Very sparse random projections", KDD 2006. That gaps only shrink, so that stale
ones are upper bounds, is Minoux, "Accelerated greedy algorithms", 1978.
"""

import math
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

DISTORTION: Final = 0.9
"""How much the projection may change a squared distance, relatively."""

_PLAIN_MAX: Final = 2**31
"""Multiplications below which the plain loop is done in about a second."""
_ACTIVE_MIN: Final = 512
_BLOCK: Final = 256
_COLUMNS: Final = 4096
_PAIRS: Final = 16_384
_PROJECTED_ROWS: Final = 65_536
_SLACK: Final = 2.0**-8
"""What a matrix product may be wrong by, as a share of the two squared norms, in TF32 even."""


def greedy_coreset(
    rows: Float[Tensor, "rows dim"], count: int, *, seed: int
) -> Int[Tensor, " chosen"]:
    """Indices of `count` rows (all of them, if fewer), each the farthest from those before it.

    The choice starts at row 0; of rows equally far the first is taken. Rows wider than
    `projected_dim` are projected at random before, the same way for the same seed.
    """
    if rows.shape[0] <= count:
        return torch.arange(rows.shape[0])
    points = projected(rows, seed=seed)
    if points.numel() * count <= _PLAIN_MAX:
        return _one_by_one(points, count)
    return farthest_first(points, count)


def projected_dim(rows: int) -> int:
    """To how many dimensions so many rows can be projected within `DISTORTION`.

    Source: Johnson and Lindenstrauss; the bound of Dasgupta and Gupta, 2003.
    """
    return math.floor(4 * math.log(rows) / (DISTORTION**2 / 2 - DISTORTION**3 / 3))


def projected(rows: Float[Tensor, "rows dim"], *, seed: int) -> Float[Tensor, "rows dim_projected"]:
    """Rows after a sparse random projection, or as they are where that would not narrow them."""
    count, dim = rows.shape
    narrow = projected_dim(count)
    if narrow >= dim:
        return rows.contiguous()
    generator = torch.Generator().manual_seed(seed)
    density = 1 / math.sqrt(dim)
    lots = torch.rand(dim, narrow, generator=generator)
    signs = (lots > 1 - density / 2).float() - (lots < density / 2).float()
    directions = (signs / math.sqrt(density * narrow)).to(rows.device)
    points = torch.empty(count, narrow, device=rows.device)
    for start in range(0, count, _PROJECTED_ROWS):
        block = slice(start, start + _PROJECTED_ROWS)
        torch.matmul(rows[block].float(), directions, out=points[block])
    return points


def _one_by_one(points: Tensor, count: int) -> Tensor:
    norms = points.square().sum(1)
    chosen = torch.empty(count, dtype=torch.int64)
    gap = torch.full_like(norms, torch.inf)
    centre = 0
    for step in range(count):
        chosen[step] = centre
        to_centre = torch.addmv(norms + norms[centre], points, points[centre], alpha=-2.0)
        torch.minimum(gap, to_centre, out=gap)
        gap[centre] = -torch.inf
        centre = int(gap.argmax())
    return chosen


def farthest_first(points: Float[Tensor, "rows dim"], count: int) -> Int[Tensor, " count"]:
    """The plain loop's choice, to the bit on a CPU, without its passes over all rows.

    A gap (distance to the nearest centre) only shrinks, so one that misses the last centres is an
    upper bound. Only the rows with the largest gaps are brought up to date; among these, centres
    are chosen for as long as one's gap is above every other row's bound. What a row has missed is
    a matrix product that names the few centres that may be nearest; distances themselves are
    always taken pair by pair, so neither blocks nor threads change them.

    On CUDA a distance may depend on the kernel, and the choice with it where two rows tie.
    """
    search = _FarthestFirst(points.float().contiguous(), count)
    while search.found < count and search.advance():
        pass
    return search.finished()


class _FarthestFirst:
    """Centres found so far, and for each row a gap and how many centres it takes account of."""

    def __init__(self, points: Tensor, count: int) -> None:
        rows, dim = points.shape
        self.points, self.count = points, count
        self.middle = points.mean(0)  # a matrix product is precise for rows around zero alone
        self.norms = torch.empty(rows, device=points.device)
        for start in range(0, rows, _PROJECTED_ROWS):
            block = slice(start, start + _PROJECTED_ROWS)
            self.norms[block] = (points[block] - self.middle).square().sum(1)
        self.chosen = torch.zeros(count, dtype=torch.int64, device=points.device)
        self.centres = torch.empty(count, dim, device=points.device)
        self.found = 0
        self._accept(torch.zeros(1, dtype=torch.int64, device=points.device))
        self.gap = _distances(points, points[:1])
        self.seen = torch.ones(rows, dtype=torch.int64, device=points.device)
        cuda = points.device.type == "cuda"
        self.active = min(rows, max(_ACTIVE_MIN, rows // (32 if cuda else 256)))
        self.block = 16 * _BLOCK if cuda else _BLOCK
        self.unseen = 32 if cuda else 1  # steps that are launched before any is looked at

    def advance(self) -> bool:
        """Whether there was a row that is no centre's double; then some are brought up to date."""
        first = self.gap.argmax(keepdim=True)
        if float(self.gap[first]) == 0:
            return False
        if int(self.seen[first]) == self.found:  # it is up to date, and no bound is above it
            self._accept(first)
            return True
        top = self.gap.topk(self.active)
        floor = float(top.values[-1]) if self.active < len(self.gap) else 0.0
        active = torch.unique(torch.cat([first, top.indices]))
        self._catch_up(active)
        self._choose(active, floor)
        return True

    def finished(self) -> Tensor:
        """All centres; if there are too few that differ, the first other rows too."""
        other = torch.ones(len(self.points), dtype=torch.bool, device=self.points.device)
        other[self.chosen[: self.found]] = False
        doubles = other.nonzero()[: self.count - self.found, 0]
        return torch.cat([self.chosen[: self.found], doubles]).cpu()

    def _accept(self, rows: Tensor) -> None:
        after = slice(self.found, self.found + len(rows))
        self.chosen[after] = rows
        self.centres[after] = self.points[rows] - self.middle
        self.found += len(rows)

    def _catch_up(self, active: Tensor) -> None:
        """Let the gaps of these rows take account of all centres."""
        active = active[self.seen[active].argsort(stable=True)]
        for start in range(0, len(active), self.block):
            rows = active[start : start + self.block]
            for centre in range(int(self.seen[rows[0]]), self.found, _COLUMNS):
                self._compare(rows, slice(centre, min(centre + _COLUMNS, self.found)))

    def _compare(self, rows: Tensor, some: slice) -> None:
        """Let the gaps of these rows take account of some centres."""
        points, norms, gap = self.points[rows], self.norms[rows], self.gap[rows]
        others = self.norms[self.chosen[some]]
        low = torch.addmm(
            (1 - _SLACK) * others, points - self.middle, self.centres[some].t(), alpha=-2.0
        )  # the least that a squared distance can be, less the row's own norm
        lowest, at = low.min(1)
        high = lowest + 2 * _SLACK * (norms + others[at])
        limit = torch.minimum(high, gap.square() - (1 - _SLACK) * norms)
        row, column = (low <= limit[:, None]).nonzero(as_tuple=True)
        centres = self.chosen[some][column]
        for start in range(0, len(row), _PAIRS):
            pairs = slice(start, start + _PAIRS)
            distances = _distances(points[row[pairs], None], self.points[centres[pairs], None])
            gap.scatter_reduce_(0, row[pairs], distances, "amin")
        self.gap[rows] = gap

    def _choose(self, active: Tensor, floor: float) -> None:
        """Find centres among these rows while one's gap is above `floor`, the others' bound."""
        points, gap = self.points[active], self.gap[active]
        sound = True
        while sound and self.found < self.count:
            picks, radii, gaps = [], [], [gap]
            for _ in range(min(self.unseen, self.count - self.found)):
                picks.append(gap.argmax(keepdim=True))
                radii.append(gap[picks[-1]])
                gap = torch.minimum(gap, _distances(points, points[picks[-1]]))
                gaps.append(gap)
            good = int((torch.cat(radii) > floor).sum())  # the first ones: radii only shrink
            self._accept(active[torch.cat(picks)[:good]])
            gap, sound = gaps[good], good == len(picks)
        self.gap[active] = gap
        self.seen[active] = self.found


def _distances(some: Tensor, others: Tensor) -> Tensor:
    """Distances of rows by their differences, in the same order of sums whatever their number."""
    return torch.cdist(some, others, compute_mode="donot_use_mm_for_euclid_dist").flatten()
