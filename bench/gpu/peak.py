"""Bf16 products of matrices at the most, dense, in TFLOP/s, as NVIDIA's data sheets give them."""

from __future__ import annotations

# The first whose name is part of the device's.
DENSE_BF16 = {
    "GH200": 989.4,
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "A100": 312.0,
}


def dense_bf16(device_name: str) -> float | None:
    return next((peak for name, peak in DENSE_BF16.items() if name in device_name), None)
