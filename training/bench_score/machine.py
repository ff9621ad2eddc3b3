"""What a machine can do at most, measured where the profile is: products, and moving memory."""

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from inference.model.dense import linear
from training.bench_score.costs import Work
from training.bench_score.stopwatch import synchronised

_TURNS: Final = 7
_AT_ONCE: Final = {"cuda": 10, "cpu": 1}
"""Operations between two looks at the clock: on a GPU a launch must not count."""
_STATUS: Final = Path("/proc/self/status")
_MEMINFO: Final = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One device, and its measured roofline."""

    device: str
    name: str
    torch: str
    threads: int
    load: float
    """Of the last minute, before anything was measured."""
    fp32_tflops: float
    bf16_tflops: float
    gib_per_s: float
    """Read and written, by a copy."""

    def roof_ms(self, work: Work) -> float:
        """The least time that `work` takes here: it is bound by products or by memory."""
        products = work.fp32 / self.fp32_tflops + work.bf16 / self.bf16_tflops
        return 1e3 * max(products / 1e12, work.moved / 2**30 / self.gib_per_s)


def measure_machine(device: str, *, quick: bool) -> Machine:
    """The roofline of this device: square products of both precisions, and a large copy."""
    side = {(True, "cpu"): 256, (True, "cuda"): 1024, (False, "cpu"): 2048}.get(
        (quick, device), 8192
    )
    numbers = (1 << 20) if quick else (1 << 26)
    load = os.getloadavg()[0]
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    copied = _seconds(lambda: target.copy_(source), device)
    return Machine(
        device=device,
        name=torch.cuda.get_device_name() if device == "cuda" else _processor(),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        load=load,
        fp32_tflops=_tflops(side, torch.float32, device),
        bf16_tflops=_tflops(side, torch.bfloat16, device),
        gib_per_s=2 * source.nbytes / 2**30 / copied,
    )


def start_peak(device: str) -> None:
    """From now on the highest use of memory is looked for (on a GPU alone)."""
    if device == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: str) -> float:
    """Allocated on the GPU at most since `start_peak`; else what the process holds now."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return _kib(_STATUS, "VmRSS") / 2**20


def held_gib(device: str) -> float:
    """What is allocated on the GPU, or what the process holds."""
    if device == "cuda":
        return torch.cuda.memory_allocated() / 2**30
    return _kib(_STATUS, "VmRSS") / 2**20


def free_gib(device: str) -> float:
    """What may still be taken."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] / 2**30
    return _kib(_MEMINFO, "MemAvailable") / 2**20


def _kib(path: Path, key: str) -> float:
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return float(lines[key].split()[0])


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "processor"


@torch.no_grad()
def _tflops(side: int, dtype: torch.dtype, device: str) -> float:
    """Of the faster library, where a processor has several."""
    left = torch.randn(side, side, device=device).to(dtype)
    right = torch.randn(side, side, device=device).to(dtype)
    seconds = _seconds(lambda: left @ right, device)
    if device == "cpu":
        seconds = min(seconds, _seconds(lambda: linear(left, right), device))
    return 2 * side**3 / 1e12 / seconds


def _seconds(work: Callable[[], object], device: str) -> float:
    """The median over turns; the first ones are not counted."""
    taken = []
    for turn in range(_TURNS + 2):
        synchronised(device)
        started = time.perf_counter()
        for _ in range(_AT_ONCE[device]):
            work()
        synchronised(device)
        if turn > 1:
            taken.append((time.perf_counter() - started) / _AT_ONCE[device])
    return statistics.median(taken)
