"""A training run's time by kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

MOST = 10


def kernel_times(train: Callable[[int], object], steps: int, device: str) -> list[dict[str, Any]]:
    """The kernels (on a CPU: torch's operators) that take the most time, with their share and their cost per step."""
    on_cuda = device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU]) as profiled:
        train(steps)
    rows = [
        (row.self_device_time_total if on_cuda else row.self_cpu_time_total, row.key, row.count)
        for row in profiled.key_averages()
        if (row.device_type == DeviceType.CUDA) == on_cuda and not row.is_user_annotation
    ]
    total = sum(time for time, *_ in rows) or 1.0
    return [
        {"kernel": key, "share": time / total, "ms": time / 1e3 / steps, "calls": count / steps}
        for time, key, count in sorted(rows, reverse=True)[:MOST]
    ]
