"""The device's ceilings: the rates of copying and of matrix products, large ones and the model's."""

from __future__ import annotations

import torch
from peak import dense_bf16
from stage import arguments, require, save
from timing import median_seconds
from workloads import WORKLOADS, workload

from bertfast.config import BertConfig, TrainConfig

LARGE = 8192
COPIED = 1 << 30  # bytes
FULL = 0.85  # share of a batch's positions that hold a token, roughly
ROWS_OF_HEAD = 8  # tokens for each prediction, roughly


def copy(device: str, tiny: bool) -> float:
    """GB/s, read and written together."""
    source = torch.empty(COPIED >> (10 if tiny else 0), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / median_seconds(lambda: target.copy_(source), device) / 1e9


def product(m: int, k: int, n: int, dtype: torch.dtype, device: str) -> float:
    """TFLOP/s of (m, k) and (k, n)."""
    a, b = (torch.randn(shape, device=device).to(dtype) for shape in ((m, k), (k, n)))
    out = torch.empty(m, n, dtype=dtype, device=device)
    return 2 * m * k * n / median_seconds(lambda: torch.mm(a, b, out=out), device) / 1e12


def shapes(model: BertConfig, train: TrainConfig) -> dict[str, tuple[int, int, int]]:
    tokens = int(FULL * train.batch_size * train.max_len)
    hidden = model.hidden_size
    return {
        "query": (tokens, hidden, hidden),
        "key and value": (tokens, hidden, 2 * hidden),
        "feed-forward": (tokens, hidden, model.intermediate_size),
        "vocabulary": (tokens // ROWS_OF_HEAD, hidden, model.padded_vocab_size),
    }


def main() -> None:
    options = arguments()
    require(options.device)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    result = {"copy_GB_per_s": copy(options.device, options.tiny), "bf16_data_sheet_TFLOP_per_s": dense_bf16(name)}
    save(result)
    products = result["products"] = []
    large = 64 if options.tiny else LARGE
    jobs = [("large", "square", (large, large, large))]
    for size in WORKLOADS:
        chosen = workload(size, options.device, options.tiny)
        jobs += [(size, what, shape) for what, shape in shapes(chosen.model, chosen.train).items()]
    for size, what, shape in jobs:
        entry = {"of": size, "product": what, "m_k_n": shape}
        products.append(entry)
        for dtype in (torch.bfloat16, torch.float32):
            entry[f"{str(dtype)[6:]}_TFLOP_per_s"] = product(*shape, dtype, options.device)
            save(result)


if __name__ == "__main__":
    main()
