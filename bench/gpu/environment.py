"""The machine and the versions that the other stages' figures belong to."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from stage import arguments, save
from versions import versions

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
ROOT = Path(__file__).parents[2]


def output(*command: str) -> str | None:
    """What a command says; None where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def gpu() -> dict[str, object] | None:
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    asked = "driver_version,clocks.max.sm,clocks.max.memory,power.limit"
    nvidia_smi = output("nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader", "--id=0")
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_GB": round(properties.total_memory / 1e9, 1),
        **dict(zip(asked.split(","), (nvidia_smi or "").split(", "), strict=False)),
    }


def main() -> None:
    device = arguments().device
    found = gpu()
    save(
        {
            "gpu": found,
            "gpus": torch.cuda.device_count(),
            "cpu": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "versions": versions(PACKAGES),
            "torch_cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nvcc": (output("nvcc", "--version") or "").split("\n")[-1] or None,
            "commit": output("git", "rev-parse", "HEAD"),
            "changed_files": (output("git", "status", "--porcelain") or "").splitlines(),
        }
    )
    if device == "cuda" and found is None:
        sys.exit(f"torch {torch.__version__} sees no CUDA device")


if __name__ == "__main__":
    main()
