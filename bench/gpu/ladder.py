"""ladder.py RUNG: the first losses of a run at the notebook's size, and the time of a step, one change at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any

import torch
from generated_corpus import generated_corpus
from stage import arguments, require, save, skip
from workloads import workload

from bertfast import Bert, ops, train
from bertfast.ops.fused_mlm_loss import why_not_fused

SENTENCES, TINY_SENTENCES = 20_000, 800
LOSSES, STEPS = 20, 60
TINY_LOSSES, TINY_STEPS = 3, 2

RUNGS: dict[str, dict[str, Any]] = {
    "cpu": {"device": "cpu", "precision": "fp32"},
    "twins": {"cuda_graph": False, "mlm_loss": "chunked"},
    "eager": {"cuda_graph": False, "mlm_loss": "chunked"},
    "graph": {"cuda_graph": True, "mlm_loss": "chunked"},
    "fused": {"cuda_graph": True, "mlm_loss": "fused"},
}


def main() -> None:
    options = arguments("rung", choices=list(RUNGS))
    changes, device = RUNGS[options.rung], options.device
    if device == "cpu" and changes.get("cuda_graph"):
        skip("needs a CUDA device")
    require(device)
    chosen = workload("notebook", device, options.tiny)
    if options.rung == "fused" and (
        obstacle := why_not_fused(chosen.model.hidden_size, torch.bfloat16, torch.device(device))
    ):
        skip(f"fused: {obstacle}")
    if device == "cpu":
        changes = {name: value for name, value in changes.items() if name not in ("cuda_graph", "mlm_loss")}
    sentences = TINY_SENTENCES if options.tiny else SENTENCES
    corpus = generated_corpus(chosen.model.vocab_size, chosen.sentences_per_document, sentences)
    count, more = (TINY_LOSSES, TINY_STEPS) if options.tiny else (LOSSES, STEPS)
    config = dataclasses.replace(chosen.train, steps=count, check=False, **changes)

    def timed(steps: int) -> tuple[float, list[float]]:
        torch.manual_seed(0)
        model = Bert(chosen.model)
        started = time.perf_counter()
        run = train(model, corpus, dataclasses.replace(config, steps=steps))
        return time.perf_counter() - started, [record.mlm_loss for record in run.history.records]

    with ops.use_twins(ops.PARTS) if options.rung == "twins" else contextlib.nullcontext():
        seconds, losses = timed(count)
        result: dict[str, Any] = {"losses": losses}
        save(result)
        print(f"losses: {' '.join(f'{loss:.4f}' for loss in losses)}", flush=True)
        if options.rung != "cpu":
            seconds, _ = timed(count)  # the first run loaded every kernel
            result["ms"] = 1e3 * (timed(count + more)[0] - seconds) / more
            print(f"{result['ms']:.3f} ms a step", flush=True)
            save(result)


if __name__ == "__main__":
    main()
