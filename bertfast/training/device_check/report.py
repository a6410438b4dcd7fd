"""A description of the machine under check, and a text table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from bertfast import ops
from bertfast._native import native
from bertfast._version import __version__
from bertfast.training.device_check.verdict import driver


def machine(devices: Sequence[torch.device]) -> dict[str, str]:
    """Devices, driver, torch, instruction set, kernels."""
    facts = {"bertfast": __version__, "torch": f"{torch.__version__} (CUDA {torch.version.cuda})"}
    if devices[0].type == "cuda":
        for device in devices:
            properties = torch.cuda.get_device_properties(device)
            facts[str(device)] = (
                f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
                f"{properties.total_memory / 1e9:.0f} GB"
            )
        facts["driver"] = driver()
    return {
        **facts,
        "CPU": f"{native.isa()}, {torch.get_num_threads()} threads",
        "kernels built for": "CPU and CUDA" if native.has_cuda else "CPU",
        "kernels": ops.kernels(devices[0]),
    }


def table(rows: Iterable[Sequence[str]]) -> str:
    """A text table: each column is padded to its widest cell."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
