"""table.py RESULTS: the stages and their main figures, for the eye. Exit status 1 where one failed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KERNELS = 5
SAID = 3  # first lines of a run: device and kernels, where the corpus is, which form the loss takes
FAILED = ("failed", "out of time")


def lines(entries: list[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        reason = f": {entry['reason']}" if "reason" in entry else ""
        yield f"{entry['stage']:<12} {entry['seconds']:>4.0f} s  {entry['status']}{reason}"
        if entry["stage"] == "build" and entry["status"] in FAILED:
            yield "  so all that follows is of the package that was installed before"
    results = {entry["stage"]: entry["result"] for entry in entries if "result" in entry}
    if "ceilings" in results:
        yield from ceilings(results["ceilings"])
    if "mlm-loss" in results:
        yield from mlm_loss(results["mlm-loss"])
    for result in results.values():
        if "candidates" in result:
            yield from training(result)


def ceilings(result: dict[str, Any]) -> Iterator[str]:
    yield f"\ncopy {result['copy_GB_per_s']:,.0f} GB/s; products of matrices, TFLOP/s (bf16, fp32):"
    for each in result.get("products", ()):
        shape = " x ".join(map(str, each["m_k_n"]))
        rates = f"{each['bfloat16_TFLOP_per_s']:>9.2f} {each['float32_TFLOP_per_s']:>9.2f}"
        yield f"  {each['of']:<9} {each['product']:<14} {shape:<22}{rates}"


def mlm_loss(result: dict[str, Any]) -> Iterator[str]:
    yield "\nmasked-LM loss and gradients, bf16, ms (farthest from float64):"
    for each in result["sizes"]:
        forms = (
            f"{name} {each[name]['ms']:.3f} ({max(each[name]['errors'].values()):.1e})"
            for name in ("chunks", "fused")
            if name in each
        )
        yield f"  {' x '.join(map(str, each['rows_hidden_words'])):<22} {', '.join(forms)}"


def training(result: dict[str, Any]) -> Iterator[str]:
    step = result["of_a_step"]
    yield f"\n{result['size']}: {step['pairs']:,} pairs a step, {step['tokens']:,.0f} tokens"
    yield f"  {'':<30} {'ms/step':>9} {'pairs/s':>11} {'TFLOP/s':>8} {'of peak':>8} {'usual':>7} {'GB':>6}  ours' time"
    ours = result["candidates"]["ours"].get("pairs_per_second")
    for label, entry in result["candidates"].items():
        if "pairs_per_second" not in entry:
            yield f"  {label:<30} {entry.get('skipped') or entry.get('failed') or 'not measured'}"
            continue
        rate = entry["pairs_per_second"]
        shares = " ".join(
            share(entry[f"{name}_share_of_peak"]).rjust(8 - (name == "usual")) for name in ("needed", "usual")
        )
        memory = f"{entry['peak_memory_GB']:.1f}" if "peak_memory_GB" in entry else "-"
        times = f"{ours / rate:9.2f} x" if ours else ""
        yield (
            f"  {label:<30} {1e3 * step['pairs'] / rate:>9.3f} {rate:>11,.0f} {entry['needed_TFLOP_per_s']:>8.2f} "
            f"{shares} {memory:>6} {times}"
        )
    yield from (f"    {line}" for line in result["candidates"]["ours"].get("said", ())[:SAID])
    for each in result["candidates"]["ours"].get("kernels", ())[:KERNELS]:
        yield f"    {each['share']:>6.1%}  {each['kernel'][:90]}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def main() -> None:
    entries = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print("\n" + "\n".join(lines(entries)))
    sys.exit(any(entry["status"] in FAILED for entry in entries))


if __name__ == "__main__":
    main()
