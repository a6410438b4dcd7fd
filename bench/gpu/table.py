"""table.py RESULTS: prints the stages and their main figures. Exit status 1 if a stage failed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAID = 3  # log lines of a run to print: device and kernels, where the corpus is, the form of the loss
FAILED = ("failed", "out of time")


def lines(entries: list[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        reason = f": {entry['reason']}" if "reason" in entry else ""
        yield f"{entry['stage']:<12} {entry['seconds']:>4.0f} s  {entry['status']}{reason}"
        if entry["stage"] == "install" and entry["status"] in FAILED:
            yield "  so all stages below ran the package that was installed before"
    results = {entry["stage"]: entry["result"] for entry in entries if "result" in entry}
    if "ceilings" in results:
        yield from ceilings(results["ceilings"])
    if "mlm-loss" in results:
        yield from mlm_loss(results["mlm-loss"])
    if "device-check" in results:
        yield ""
        for each in results["device-check"]["outcomes"]:
            yield f"{each['check']:<24} {each['status']:<12} {each['said']}"
    yield from ladder({name: each for name, each in results.items() if name.startswith("ladder-")})
    yield from training([each for each in results.values() if "who" in each])
    for name, result in results.items():
        if "kernels" in result:
            yield f"\n{name}: kernels of a step"
            for each in result["kernels"]:
                yield f"  {each['share']:>6.1%} {each['ms']:>8.3f} ms {each['calls']:>6.1f} x  {each['kernel'][:90]}"


def ladder(rungs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """One line per rung: ms per step, the largest difference from the CPU's losses, the losses."""
    if rungs:
        yield "\nthe ladder, at the notebook's size: ms a step, farthest from the CPU's losses, losses"
    truth = rungs.get("ladder-cpu", {}).get("losses", [])
    for name, rung in rungs.items():
        farthest = max((abs(a - b) for a, b in zip(rung["losses"], truth, strict=False)), default=float("nan"))
        losses = " ".join(f"{loss:.3f}" for loss in rung["losses"])
        yield f"  {name.removeprefix('ladder-'):<8} {rung.get('ms', float('nan')):>9.3f} {farthest:>8.4f}  {losses}"


def ceilings(result: dict[str, Any]) -> Iterator[str]:
    yield f"\ncopy {result['copy_GB_per_s']:,.0f} GB/s; products of matrices, TFLOP/s (bf16, fp32):"
    for each in result.get("products", ()):
        shape = " x ".join(map(str, each["m_k_n"]))
        rates = " ".join(f"{figure(each.get(f'{dtype}_TFLOP_per_s'), 2):>9}" for dtype in ("bfloat16", "float32"))
        yield f"  {each['of']:<9} {each['product']:<14} {shape:<22}{rates}"


def mlm_loss(result: dict[str, Any]) -> Iterator[str]:
    yield "\nmasked-LM loss and gradients, bf16, ms (farthest from float64):"
    for each in result["sizes"]:
        forms = (
            f"{name} {figure(each[name].get('ms'), 3)} ({max(each[name]['errors'].values()):.1e})"
            for name in ("chunks", "fused")
            if name in each
        )
        yield f"  {' x '.join(map(str, each['rows_hidden_words'])):<22} {', '.join(forms)}"


def training(results: list[dict[str, Any]]) -> Iterator[str]:
    rates = {result["size"]: result.get("pairs_per_second") for result in results if result["who"] == "ours"}
    sizes: set[str] = set()
    for result in results:
        if "pairs_per_second" not in result:
            continue
        size, step, rate = result["size"], result["of_a_step"], result["pairs_per_second"]
        if size not in sizes:
            sizes.add(size)
            yield f"\n{size}: {step['pairs']:,} pairs a step, {step['tokens']:,.0f} tokens"
            units = f"{'ms/step':>9} {'pairs/s':>11} {'TFLOP/s':>8} {'of peak':>8} {'usual':>7} {'GB':>6}"
            yield f"  {'':<14} {units}  ours' time"
        shares = " ".join(
            share(result[f"{name}_share_of_peak"]).rjust(8 - (name == "usual")) for name in ("needed", "usual")
        )
        memory = figure(result.get("peak_memory_GB"), 1)
        times = f"{rates[size] / rate:9.2f} x" if rates.get(size) else ""
        yield (
            f"  {result['who']:<14} {1e3 * step['pairs'] / rate:>9.3f} {rate:>11,.0f} "
            f"{result['needed_TFLOP_per_s']:>8.2f} {shares} {memory:>6} {times}"
        )
        yield from (f"    {line}" for line in result.get("said", ())[:SAID])


def figure(value: float | None, digits: int) -> str:
    """A dash for what was not measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def main() -> None:
    entries = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print("\n" + "\n".join(lines(entries)))
    sys.exit(any(entry["status"] in FAILED for entry in entries))


if __name__ == "__main__":
    main()
