"""Peak rates of dense bf16 matrix products in TFLOP/s, from NVIDIA's data sheets."""

from __future__ import annotations

# The first key that is part of the device's name applies.
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
