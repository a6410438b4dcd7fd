"""Shows the examples of any training step as text."""

from __future__ import annotations

from collections.abc import Iterator

from bertfast.config import TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.errors import InputError
from bertfast.sampling.batch import PackedBatch
from bertfast.sampling.sampler import Sampler

_LABELS = {"nsp": ("true next", "another sentence"), "sop": ("in order", "swapped")}


def batch_lines(corpus: Corpus, config: TrainConfig, step: int, most: int) -> Iterator[str]:
    """A heading, then the examples of step `step`, one per line, at most `most`.

    A predicted token is shown as [original→input]: [crane→MASK].
    """
    if not 0 <= step < config.steps:
        raise InputError(f"--step {step}: the run has the steps 0 to {config.steps - 1}")
    if (step + 1) * config.batch_size * config.max_len >= 1 << 63:
        raise InputError(f"--step {step} is too large: its examples' numbers leave no room in 64 bits")
    sampler = Sampler(corpus, config.at(step))
    first, count = step * config.batch_size, min(most, config.batch_size)
    last = first + config.batch_size - 1
    yield f"step {step}: examples {first:,} to {last:,}, of epoch {first // sampler.num_examples}"
    batch = sampler.packed(first, count)
    for index in range(count):
        label = ""
        if config.objective != "none":
            label = f" ({_LABELS[config.objective][int(batch.next_sentence_label[index])]})"
        yield f"{first + index:,}{label}: {_in_words(batch, index, corpus)}"
    if count < config.batch_size:
        yield f"and {config.batch_size - count:,} more (--examples)"


def _in_words(batch: PackedBatch, index: int, corpus: Corpus) -> str:
    """An example's tokens: predicted ones in brackets, tokens that continue a word joined to the previous one."""
    begin, end = batch.cu_seqlens[index : index + 2].tolist()
    predicted = slice(*batch.cu_masked[index : index + 2].tolist())
    ids, tokenizer = batch.input_ids[begin:end], corpus.tokenizer
    continues = corpus.continuation[ids.numpy()]
    positions = (batch.masked_positions[predicted] - begin).tolist()
    originals = dict(zip(positions, tokenizer.tokens(batch.labels[predicted].tolist()), strict=True))
    words = ""
    for position, token in enumerate(tokenizer.tokens(ids.tolist())):
        if position in originals:
            shown = "MASK" if ids[position] == tokenizer.special_ids.mask else token
            words += f" [{originals[position]}→{shown}]"
        else:
            words += token.removeprefix(tokenizer.prefix) if continues[position] else f" {token}"
    return words.lstrip()
