"""The machine and the versions behind the other stages' figures."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path

import torch
from machine import origin, output
from stage import arguments, save

PACKAGES = (
    "bertfast",
    "torch",
    "numpy",
    "tokenizers",
    "transformers",
    "d2l",
    "scikit-build-core",
    "pybind11",
    "pytest",
)


def gpu() -> dict[str, object] | None:
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    fields = "driver_version,clocks.max.sm,clocks.max.memory,power.limit"
    nvidia_smi = output("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "--id=0")
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_GB": round(properties.total_memory / 1e9, 1),
        **dict(zip(fields.split(","), (nvidia_smi or "").split(", "), strict=False)),
    }


def _loaded() -> set[str]:
    """The files that are mapped into this process, once the package's kernels are loaded."""
    with contextlib.suppress(Exception):  # the stage reports the machine of a package that fails to load, too
        importlib.import_module("bertfast")
    return {line.split()[-1] for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()}


def main() -> None:
    device = arguments().device
    found = gpu()
    save(
        {
            "gpu": found,
            "gpus": torch.cuda.device_count(),
            **origin(PACKAGES),
            "torch_cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "openmp": sorted(path for path in _loaded() if "omp" in Path(path).name),  # two mean two thread pools
            "nvcc": (output("nvcc", "--version") or "").split("\n")[-1] or None,
        }
    )
    if device == "cuda" and found is None:
        sys.exit(f"torch {torch.__version__} sees no CUDA device")


if __name__ == "__main__":
    main()
