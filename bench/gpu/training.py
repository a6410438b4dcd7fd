"""training.py SIZE: a training step of this size, ours beside its peers in one process, in alternating rounds."""

from __future__ import annotations

import gc
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import peers
import torch
from generated_corpus import generated_corpus
from kernel_times import kernel_times
from operations import step_operations
from ours import Ours
from peak import dense_bf16
from stage import arguments, require, save
from workloads import WORKLOADS, Workload, workload

from bertfast.data.corpus import Corpus
from bertfast.sampling.sampler import Sampler

SENTENCES = 80_000
ROUNDS = 7
TINY_SENTENCES, TINY_ROUNDS = 800, 2


def candidates_for(size: str, tiny: bool) -> dict[str, Callable[[Workload, Corpus], Any]]:
    """How each is made, by its name. Large leaves the time to ours; where all is tiny, compiling would take most."""
    found: dict[str, Callable[[Workload, Corpus], Any]] = {"ours": Ours}
    if size == "notebook":
        found["notebook (d2l), fp32"] = peers.notebook
    if size != "large" and tiny:
        found["transformers, bf16"] = peers.transformers_eager
    elif size != "large":
        found["transformers, bf16, compiled"] = peers.transformers_compiled
    return found


def load(chosen: Workload, corpus: Corpus) -> dict[str, float]:
    """What a step has on average, over its first hundred."""
    steps = 100
    plan = Sampler(corpus, chosen.train).plan(0, steps * chosen.train.batch_size)
    operations = step_operations(chosen.model, plan)
    return {
        "pairs": chosen.train.batch_size,
        "tokens": int(plan.lengths.sum()) / steps,
        "predictions": int(plan.num_masked.sum()) / steps,
        **{f"{name}_operations": count / steps for name, count in operations.items()},
    }


def allocated(device: str, most: bool = False) -> int:
    """Bytes of the GPU's memory; 0 on a CPU, where nobody counts them."""
    if device == "cpu":
        return 0
    return torch.cuda.max_memory_allocated() if most else torch.cuda.memory_allocated()


def begun(
    make: Callable[[Workload, Corpus], Any], chosen: Workload, corpus: Corpus, entry: dict[str, Any]
) -> Any | None:
    """The candidate, warm; None where it can't run, which `entry` then says. `entry` gets its peak memory."""
    device = chosen.train.device
    gc.collect()
    before = allocated(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    try:
        candidate = make(chosen, corpus)
        candidate.train(chosen.warm_up)
    except ImportError as error:
        entry["skipped"] = str(error)
        return None
    except Exception as error:
        traceback.print_exc()
        entry["failed"] = f"{type(error).__name__}: {error}".splitlines()[0]
        return None
    entry["seconds_to_begin"] = time.perf_counter() - started
    if device == "cuda":
        entry["peak_memory_GB"] = (allocated(device, most=True) - before) / 1e9
    return candidate


def fill(entry: dict[str, Any], of_a_step: dict[str, float], peak: float | None) -> None:
    """All that follows from the rounds' times."""
    median = statistics.median(entry["seconds_per_step"])
    entry["pairs_per_second"] = of_a_step["pairs"] / median
    entry["tokens_per_second"] = of_a_step["tokens"] / median
    for name in ("needed", "usual"):
        rate = of_a_step[f"{name}_operations"] / median / 1e12
        entry[f"{name}_TFLOP_per_s"] = rate
        entry[f"{name}_share_of_peak"] = rate / peak if peak else None


def main() -> None:
    given = arguments("size", choices=list(WORKLOADS))
    until = time.perf_counter() + given.seconds
    require(given.device)
    chosen = workload(given.size, given.device, given.tiny)
    corpus = generated_corpus(
        chosen.model.vocab_size, chosen.sentences_per_document, TINY_SENTENCES if given.tiny else SENTENCES
    )
    of_a_step = load(chosen, corpus)
    peak = dense_bf16(torch.cuda.get_device_name()) if given.device == "cuda" else None
    makers = candidates_for(given.size, given.tiny)
    entries: dict[str, dict[str, Any]] = {label: {} for label in makers}
    result = {"size": given.size, "of_a_step": of_a_step, "bf16_data_sheet_TFLOP_per_s": peak, "candidates": entries}
    candidates = {}

    def measure(label: str, number: int) -> None:
        entries[label].setdefault("seconds_per_step", []).append(candidates[label].seconds_per_step(number))
        fill(entries[label], of_a_step, peak)
        save(result)

    for label, make in makers.items():
        candidate = begun(make, chosen, corpus, entries[label])
        save(result)
        if candidate is not None:
            candidates[label] = candidate
            measure(label, 0)  # should another take all the time there is to begin
    for number in range(1, TINY_ROUNDS if given.tiny else ROUNDS):
        if time.perf_counter() > until:
            break
        for label in candidates:
            measure(label, number)
    if ours := candidates.get("ours"):
        entries["ours"]["said"] = ours.said
        entries["ours"]["kernels"] = kernel_times(ours.train, chosen.warm_up, given.device)
    save(result)
    failed = [f"{label}: {entry['failed']}" for label, entry in entries.items() if "failed" in entry]
    if failed:
        sys.exit("; ".join(failed))


if __name__ == "__main__":
    main()
