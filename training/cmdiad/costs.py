"""What a stage takes for one part, noted while the stage is at work."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import torch


@dataclass(slots=True)
class Cost:
    """The times of one stage, and the most memory that was held after it.

    Args:
        device: Where the stage is at work; a GPU is waited for.
    """

    device: torch.device
    times_ms: list[float] = field(default_factory=list)
    peak_mib: float = 0.0

    @contextmanager
    def noted(self, *, parts: int = 1) -> Iterator[None]:
        """What is done inside counts, shared out among so many parts."""
        self._wait()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        began_s = time.perf_counter()
        yield
        self._wait()
        self.times_ms.append((time.perf_counter() - began_s) * 1e3 / parts)
        self.peak_mib = max(self.peak_mib, self._held_mib())

    @property
    def median_ms(self) -> float:
        """Of one part; without the first time, if there are more: it warms up."""
        return statistics.median(self.times_ms[1:] or self.times_ms or [0.0])

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _held_mib(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return float(psutil.Process().memory_info().rss) / 2**20
