"""profile_steps.py SIZE: the kernels that take most of a training step's time, over twenty steps."""

from __future__ import annotations

from generated_corpus import generated_corpus
from kernel_times import kernel_times
from ours import Ours
from stage import arguments, require, save
from workloads import WORKLOADS, workload

SENTENCES, TINY_SENTENCES = 20_000, 800
STEPS, TINY_STEPS = 20, 2


def main() -> None:
    options = arguments("size", choices=list(WORKLOADS))
    require(options.device)
    chosen = workload(options.size, options.device, options.tiny)
    sentences = TINY_SENTENCES if options.tiny else SENTENCES
    corpus = generated_corpus(chosen.model.vocab_size, chosen.sentences_per_document, sentences)
    ours, steps = Ours(chosen, corpus), TINY_STEPS if options.tiny else STEPS
    ours.train(steps)
    save({"kernels": kernel_times(ours.train, steps, options.device), "said": ours.messages})


if __name__ == "__main__":
    main()
