"""training.py SIZE WHO: the time of a training step of this size, ours or a peer's, in rounds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import peers
import torch
from generated_corpus import generated_corpus
from operations import step_operations
from ours import Ours
from peak import dense_bf16
from stage import arguments, require, save, skip
from workloads import Workload, workload

from bertfast.data.corpus import Corpus
from bertfast.sampling.sampler import Sampler

SENTENCES = 80_000
ROUNDS = 7
TINY_SENTENCES, TINY_ROUNDS = 800, 2


WHO: dict[str, Callable[[Workload, Corpus], Any]] = {
    "ours": Ours,
    "d2l": peers.notebook,
    "transformers": peers.transformers_compiled,
}


def maker(who: str, tiny: bool) -> Callable[[Workload, Corpus], Any]:
    """At tiny sizes, compiling would take most of the time."""
    return peers.transformers_eager if tiny and who == "transformers" else WHO[who]


def load(chosen: Workload, corpus: Corpus) -> dict[str, float]:
    """The average contents of a step, over the first hundred."""
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
    """Allocated bytes of the GPU's memory; 0 on a CPU."""
    if device == "cpu":
        return 0
    return torch.cuda.max_memory_allocated() if most else torch.cuda.memory_allocated()


def begun(make: Callable[[Workload, Corpus], Any], chosen: Workload, corpus: Corpus, result: dict[str, Any]) -> Any:
    """The candidate, warm; skips the stage if its package is missing. Adds its peak memory to `result`."""
    device = chosen.train.device
    gc.collect()
    before = allocated(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    try:
        candidate = make(chosen, corpus)
    except ImportError as error:
        skip(str(error))
    candidate.train(chosen.warm_up)
    result["seconds_to_begin"] = time.perf_counter() - started
    if device == "cuda":
        result["peak_memory_GB"] = (allocated(device, most=True) - before) / 1e9
    return candidate


def fill(result: dict[str, Any], peak: float | None) -> None:
    """Adds the rates that follow from the rounds' times."""
    median, of_a_step = statistics.median(result["seconds_per_step"]), result["of_a_step"]
    result["pairs_per_second"] = of_a_step["pairs"] / median
    result["tokens_per_second"] = of_a_step["tokens"] / median
    for name in ("needed", "usual"):
        rate = of_a_step[f"{name}_operations"] / median / 1e12
        result[f"{name}_TFLOP_per_s"] = rate
        result[f"{name}_share_of_peak"] = rate / peak if peak else None


def main() -> None:
    options = arguments("size", "who")
    until = time.perf_counter() + options.seconds
    require(options.device)
    chosen = workload(options.size, options.device, options.tiny)
    corpus = generated_corpus(
        chosen.model.vocab_size, chosen.sentences_per_document, TINY_SENTENCES if options.tiny else SENTENCES
    )
    peak = dense_bf16(torch.cuda.get_device_name()) if options.device == "cuda" else None
    result: dict[str, Any] = {
        "size": options.size,
        "who": options.who,
        "of_a_step": load(chosen, corpus),
        "bf16_data_sheet_TFLOP_per_s": peak,
        "seconds_per_step": [],
    }
    candidate = begun(maker(options.who, options.tiny), chosen, corpus, result)
    save(result)
    for number in range(TINY_ROUNDS if options.tiny else ROUNDS):
        if number and time.perf_counter() > until:
            break
        result["seconds_per_step"].append(candidate.seconds_per_step(number))
        fill(result, peak)
        if options.who == "ours":
            result["said"] = candidate.messages
        save(result)


if __name__ == "__main__":
    main()
