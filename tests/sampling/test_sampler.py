"""The sampler against the reference (bit for bit), against theory, and against the notebook's own data."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.array_corpus import (
    CONFIGS,
    CONTINUATION,
    SCATTERED,
    VOCABULARY,
    Corpus,
    Special,
    make_corpus,
    name,
    possible,
    some_documents,
)
from support.gpu import on_gpu
from support.notebook import notebook_dataset, notebook_paragraphs
from support.reference import Reference, divide, philox4x32

from bertfast._native import native
from bertfast.config import CorpusConfig, SamplerConfig
from bertfast.data.load import load_corpus
from bertfast.errors import InputError
from bertfast.sampling import sampler as sampler_module
from bertfast.sampling.batch import PackedBatch, PaddedBatch
from bertfast.sampling.sampler import Sampler, _residence
from bertfast.sampling.sampler import _options as sampler_options


@pytest.fixture
def isas() -> Iterator[list[str]]:
    """The instruction sets of this processor; after the test the best one is chosen again."""
    best = native.isa()
    yield native.isas()
    native.use_isa(best)


class Expected:
    """A range of the reference's examples as a packed and as a padded batch."""

    def __init__(self, reference: Reference, first: int, count: int) -> None:
        examples = [reference.example(first + i) for i in range(count)]
        config = reference.config
        self.max_len = config.max_len
        starts = list(itertools.accumulate((len(e.input_ids) for e in examples), initial=0))
        label = [e.not_next for e in examples if config.objective != "none"]
        self.packed = {
            "input_ids": [t for e in examples for t in e.input_ids],
            "token_type_ids": [t for e in examples for t in e.token_type_ids],
            "position_ids": [p for e in examples for p in range(len(e.input_ids))],
            "cu_seqlens": starts,
            "masked_positions": [
                start + p for e, start in zip(examples, starts, strict=False) for p in e.masked_positions
            ],
            "cu_masked": list(itertools.accumulate((len(e.labels) for e in examples), initial=0)),
            "labels": [t for e in examples for t in e.labels],
            "next_sentence_label": label,
            "row_keys": [
                (first + i) * config.max_len + p for i, e in enumerate(examples) for p in range(len(e.input_ids))
            ],
        }
        most = reference.count(config.max_len, config.max_len - (2 if config.objective == "none" else 3))

        def padded(values: list[int], width: int, padding: int = 0) -> list[int]:
            return values + [padding] * (width - len(values))

        self.padded = {
            "input_ids": [padded(e.input_ids, config.max_len, reference.special.pad) for e in examples],
            "token_type_ids": [padded(e.token_type_ids, config.max_len) for e in examples],
            "attention_mask": [padded([1] * len(e.input_ids), config.max_len) for e in examples],
            "masked_positions": [padded(e.masked_positions, most) for e in examples],
            "labels": [padded(e.labels, most) for e in examples],
            "mlm_weights": [padded([1] * len(e.labels), most) for e in examples],
            "next_sentence_label": label,
        }

    def check(self, packed: PackedBatch, padded: PaddedBatch) -> None:
        for batch, expected in ((packed, self.packed), (padded, self.padded)):
            for field, values in expected.items():
                tensor = getattr(batch, field)
                assert tensor.dtype == DTYPES.get(field, torch.int64), field
                assert tensor.tolist() == values, field
        assert packed.max_seqlen == self.max_len


DTYPES = {"cu_seqlens": torch.int32, "cu_masked": torch.int32, "mlm_weights": torch.float32}


def check(sampler: Sampler, reference: Reference, first: int, count: int) -> None:
    Expected(reference, first, count).check(sampler.packed(first, count), sampler.padded(first, count))


# --- Bit for bit ---


def test_the_reference_gives_the_published_words_of_philox() -> None:
    assert philox4x32([0] * 4, [0] * 2) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert philox4x32([ones] * 4, [ones] * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)
    assert philox4x32(pi[:4], pi[4:]) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_equals_reference(config: SamplerConfig, isas: list[str], two_threads: None) -> None:
    documents, count = some_documents(1), 40
    reference = Reference(documents, config, VOCABULARY, SCATTERED, set(CONTINUATION))
    expected = Expected(reference, 3, count)
    for dtype in (np.uint16, np.uint32):
        sampler = Sampler(make_corpus(documents, VOCABULARY, continuation=CONTINUATION, dtype=dtype), config)
        assert sampler.num_examples == len(reference.anchors)
        for isa, number in itertools.product(isas, (1, 2)):
            native.use_isa(isa)
            torch.set_num_threads(number)
            expected.check(sampler.packed(3, count), sampler.padded(3, count))


@pytest.mark.parametrize("masking", ["token", "span"])
def test_a_plan_is_made_on_one_thread(two_threads: None, masking: str) -> None:
    """More threads don't change it, and are not started: each step waits for its plan."""
    if not Path("/proc/self/task").exists():
        pytest.skip("the system doesn't list a process's threads")

    def running() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    sampler = Sampler(
        make_corpus(some_documents(1), VOCABULARY, continuation=CONTINUATION), SamplerConfig(masking=masking)
    )
    torch.set_num_threads(1)
    expected = sampler.plan(5, 4000)
    threads_before = running()
    torch.set_num_threads(threads_before + 8)
    planned = sampler.plan(5, 4000)
    assert running() <= threads_before
    assert torch.equal(planned.lengths, expected.lengths)
    assert torch.equal(planned.num_masked, expected.num_masked)
    sampler.packed(5, 4000)
    assert running() > threads_before  # a batch starts threads


@st.composite
def corpora(draw: Any) -> list[list[list[int]]]:
    sizes = draw(
        st.lists(st.lists(st.integers(1, 20) | st.just(70), min_size=1, max_size=6), min_size=1, max_size=8).filter(
            lambda documents: len(documents) > 1 and max(map(len, documents)) > 1
        )
    )
    rng = random.Random(draw(st.integers(0, 2**32)))
    return [[[rng.randrange(VOCABULARY) for _ in range(n)] for n in document] for document in sizes]


@given(
    documents=corpora(),
    objective=st.sampled_from(["nsp", "sop", "none"]),
    negatives=st.sampled_from(["other", "any"]),
    too_long=st.sampled_from(["truncate", "drop"]),
    segments=st.sampled_from(["auto", "sentence", "fill"]),
    masking=st.sampled_from(["token", "whole_word", "span"]),
    max_len=st.integers(5, 80),
    seed=st.integers(0, 2**63 - 1),
    shares=st.tuples(*[st.sampled_from([0.0, 1e-6, 1.0]) | st.floats(0, 1)] * 4),
    first=st.integers(0, 2**50),
    count=st.integers(0, 40),
)
@settings(max_examples=150, derandomize=True)
def test_equals_reference_anywhere(
    documents: Any,
    objective: str,
    negatives: str,
    too_long: str,
    segments: str,
    masking: str,
    max_len: int,
    seed: int,
    shares: Any,
    first: int,
    count: int,
) -> None:
    short, rate, mask, change = shares
    config = possible(
        objective=objective,
        negatives=negatives,
        too_long=too_long,
        segments=segments,
        masking=masking,
        max_len=max_len,
        seed=seed,
        short_seq_prob=short,
        mlm_probability=rate,
        mask_share=mask,
        random_share=change * (1 - mask),
    )
    if config is None:
        return
    reference = Reference(documents, config, VOCABULARY, SCATTERED, set(CONTINUATION))
    text = make_corpus(documents, VOCABULARY, continuation=CONTINUATION)
    if not reference.anchors:
        with pytest.raises(InputError, match="fits"):
            Sampler(text, config)
        return
    sampler = Sampler(text, config)
    check(sampler, reference, first, count)


@pytest.mark.parametrize("masking", ["token", "whole_word", "span"])
def test_large_numbers_and_epochs(masking: str) -> None:
    config = SamplerConfig(max_len=24, seed=2**63 - 1, masking=masking)
    documents = some_documents(2)
    reference = Reference(documents, config, VOCABULARY, SCATTERED, set(CONTINUATION))
    sampler = Sampler(make_corpus(documents, VOCABULARY, continuation=CONTINUATION), config)
    epoch = sampler.num_examples
    for first in (epoch - 9, 2**32 - 9, 2**32 * epoch - 9, (2**63 - 1) // 24 - 20):
        check(sampler, reference, first, 20)


@pytest.mark.parametrize("pairs", [1, 2, 3, 4, 5, 7, 8, 9, 64, 65])
def test_few_anchors(pairs: int) -> None:
    config = SamplerConfig(objective="sop")
    documents = [[[10 + i] for i in range(pairs + 1)]]
    reference = Reference(documents, config, 100, SCATTERED, set())
    sampler = Sampler(make_corpus(documents, 100), config)
    check(sampler, reference, 0, 3 * pairs)


def test_long_sequences() -> None:
    rng = random.Random(3)
    documents = [[[rng.randrange(VOCABULARY) for _ in range(700)] for _ in range(4)] for _ in range(3)]
    for masking in ("token", "whole_word", "span"):
        config = SamplerConfig(max_len=1000, masking=masking, mlm_probability=0.4)
        reference = Reference(documents, config, VOCABULARY, SCATTERED, set(CONTINUATION))
        sampler = Sampler(make_corpus(documents, VOCABULARY, continuation=CONTINUATION), config)
        check(sampler, reference, 0, 6)


def test_empty_batch() -> None:
    for objective in ("nsp", "none"):
        sampler = Sampler(make_corpus(some_documents(1), VOCABULARY), SamplerConfig(objective=objective, max_len=20))
        packed, padded, plan = sampler.packed(5, 0), sampler.padded(5, 0), sampler.plan(5, 0)
        assert packed.cu_seqlens.tolist() == packed.cu_masked.tolist() == [0]
        assert packed.input_ids.shape == packed.labels.shape == packed.next_sentence_label.shape == (0,)
        assert padded.input_ids.shape == (0, 20)
        assert padded.labels.shape == (0, 3)
        assert plan.lengths.shape == plan.num_masked.shape == (0,)


@pytest.mark.parametrize("config", CONFIGS[::7], ids=name)
def test_examples_do_not_depend_on_their_batch(config: SamplerConfig) -> None:
    sampler = Sampler(make_corpus(some_documents(4), VOCABULARY, continuation=CONTINUATION), config)
    whole = sampler.packed(100, 90)
    parts = [sampler.packed(100, 1), sampler.packed(101, 50), sampler.packed(151, 39)]
    for field in ("input_ids", "token_type_ids", "position_ids", "labels", "next_sentence_label", "row_keys"):
        assert torch.equal(getattr(whole, field), torch.cat([getattr(part, field) for part in parts])), field
    plan = sampler.plan(100, 90)
    assert plan.lengths.dtype == plan.num_masked.dtype == torch.int32
    assert torch.equal(plan.lengths, whole.cu_seqlens.diff())
    assert torch.equal(plan.num_masked, whole.cu_masked.diff())


def test_memory_mapped(tmp_path: Any, recwarn: pytest.WarningsRecorder) -> None:
    corpus = make_corpus(some_documents(5), VOCABULARY)
    mapped = dataclasses.replace(corpus)
    for field in ("tokens", "sentence_offsets", "document_offsets"):
        np.save(tmp_path / f"{field}.npy", getattr(corpus, field))
        setattr(mapped, field, np.load(tmp_path / f"{field}.npy", mmap_mode="r"))
    config = SamplerConfig()
    assert torch.equal(Sampler(mapped, config).packed(0, 99).input_ids, Sampler(corpus, config).packed(0, 99).input_ids)
    assert not recwarn.list


# --- Distributions ---


def one_token_sentences(sizes: list[int]) -> list[list[list[int]]]:
    """Documents in which each sentence is a unique token, so that an example shows which were drawn."""
    token = itertools.count(5)
    return [[[next(token)] for _ in range(size)] for size in sizes]


def drawn(sampler: Sampler, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and second sentence (each one token) and label of each example, with the original tokens."""
    batch = sampler.packed(first, count)
    ids = batch.input_ids.clone()
    ids[batch.masked_positions] = batch.labels
    starts = batch.cu_seqlens[:-1].long()
    return ids[starts + 1].numpy(), ids[starts + 3].numpy(), batch.next_sentence_label.numpy()


def surely(p_value: float) -> bool:
    """A correct sampler fails for one seed in 10^5. The seed is fixed, so a test always passes or always fails."""
    return p_value > 1e-5


@pytest.mark.parametrize("pairs", [1, 2, 3, 1000, 1025, 4096])
def test_each_anchor_once_an_epoch(pairs: int) -> None:
    sampler = Sampler(make_corpus(one_token_sentences([pairs + 1]), 6000, Special()), SamplerConfig(negatives="any"))
    epochs = [drawn(sampler, epoch * pairs, pairs)[0].tolist() for epoch in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(5, 5 + pairs))
    if pairs >= 1000:
        assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
        assert epochs[0] != sorted(epochs[0])


def test_order_of_an_epoch_is_uniform() -> None:
    """An anchor's position, and the anchor after it, are uniform over many epochs."""
    # With fewer than 32 anchors the orders of the small network are not equally frequent.
    pairs, epochs = 60, 8000
    sampler = Sampler(make_corpus(one_token_sentences([pairs + 1]), 100, Special()), SamplerConfig(objective="sop"))
    a, b, label = drawn(sampler, 0, pairs * epochs)
    anchors = (np.where(label == 0, a, b) - 5).reshape(epochs, pairs)
    places = np.stack([np.bincount(anchors[:, place], minlength=pairs) for place in range(pairs)])
    # The rows and columns of a permutation matrix add up to 1, which leaves (pairs - 1)^2 degrees of freedom.
    expected = epochs / pairs
    statistic = ((places - expected) ** 2 / expected).sum() * (pairs - 1) / pairs
    assert surely(stats.chi2.sf(statistic, (pairs - 1) ** 2))
    followers = Counter(zip(anchors[:, :-1].ravel().tolist(), anchors[:, 1:].ravel().tolist(), strict=True))
    assert len(followers) == pairs * (pairs - 1)
    assert surely(stats.chisquare(list(followers.values())).pvalue)


@pytest.mark.parametrize("negatives", ["other", "any"])
def test_pairs_are_drawn_as_specified(negatives: str) -> None:
    sizes = [3, 1, 5, 2, 8]
    documents = one_token_sentences(sizes)
    home = {sentence[0]: d for d, document in enumerate(documents) for sentence in document}
    sampler = Sampler(make_corpus(documents, 30, Special()), SamplerConfig(negatives=negatives, max_len=20))
    count = 20_000 * sampler.num_examples
    a, b, label = drawn(sampler, 0, count)
    assert surely(stats.binomtest(int(label.sum()), count, 0.5).pvalue)
    assert (b[label == 0] == a[label == 0] + 1).all()

    observed = Counter(zip(a[label == 1].tolist(), b[label == 1].tolist(), strict=True))
    expected = {}
    for document in documents:
        for sentence in document[:-1]:
            others = [d for d in range(len(sizes)) if negatives == "any" or d != home[sentence[0]]]
            for d in others:
                for other in documents[d]:
                    expected[sentence[0], other[0]] = 1 / (sampler.num_examples * len(others) * sizes[d])
    assert observed.keys() <= expected.keys()
    total = int(label.sum())
    assert surely(stats.chisquare([observed[pair] for pair in expected], [p * total for p in expected.values()]).pvalue)


def test_order_is_a_fair_coin() -> None:
    sampler = Sampler(make_corpus(one_token_sentences([200] * 3), 700, Special()), SamplerConfig(objective="sop"))
    a, b, label = drawn(sampler, 0, 50_000)
    assert (b - a == np.where(label == 0, 1, -1)).all()
    assert surely(stats.binomtest(int(label.sum()), 50_000, 0.5).pvalue)


def equal_sentences(tokens: int, vocab_size: int) -> Corpus:
    """500 documents of two sentences of `tokens` tokens, whose pairs all have the same layout."""
    rng = np.random.default_rng(1)
    documents = rng.integers(5, vocab_size, (500, 2, tokens)).tolist()
    return make_corpus(documents, vocab_size, Special(), dtype=np.uint32)


@pytest.mark.parametrize("tokens", [1, 2, 10, 30, 64])
def test_positions_are_uniform(tokens: int) -> None:
    count, length, m = 20_000, 2 * tokens + 3, 2 * tokens
    k = max(1, round(length * 0.15))
    batch = Sampler(equal_sentences(tokens, 2000), SamplerConfig(max_len=length)).padded(0, count)
    assert (batch.mlm_weights == 1).all()
    assert batch.masked_positions.shape == (count, k)
    assert (batch.masked_positions.diff() > 0).all()
    observed = torch.bincount(batch.masked_positions.flatten(), minlength=length)
    specials = torch.tensor([0, tokens + 1, length - 1])
    assert (observed[specials] == 0).all()
    candidates = torch.tensor([p for p in range(length) if p not in specials])
    # k of m without replacement have smaller variances than k independent choices.
    expected = count * k / m
    statistic = ((observed[candidates] - expected) ** 2).sum() / (expected * (1 - k / m)) * (m - 1) / m
    assert surely(stats.chi2.sf(float(statistic), m - 1))
    # Any two positions are predicted together equally often.
    chosen = torch.zeros(count, length).scatter_(1, batch.masked_positions, 1)[:, candidates]
    together = (chosen.T @ chosen)[torch.triu(torch.ones(m, m), 1) > 0]
    if k > 1:
        share = k * (k - 1) / (m * (m - 1))
        assert abs(float(together.mean()) / count - share) < 1e-6
        assert float(((together - count * share).abs() / (count * share) ** 0.5).max()) < 6


def test_number_of_predictions() -> None:
    """min(candidates, max(1, round(n * rate))), with Python's own round, half to even."""
    rng = np.random.default_rng(2)
    documents = [[rng.integers(5, 99, n).tolist()] for n in range(1, 202)]
    for rate in (0.0, 0.15, 0.25, 0.5, 1.0):
        config = SamplerConfig(objective="none", segments="sentence", max_len=203, mlm_probability=rate)
        sampler = Sampler(make_corpus(documents, 99, Special()), config)
        plan = sampler.plan(0, sampler.num_examples)
        assert sorted(plan.lengths.tolist()) == list(range(3, 204))
        for n, k in zip(plan.lengths.tolist(), plan.num_masked.tolist(), strict=True):
            # n * 0.15 in floating point is not exact, but half-way cases (n = 10, 30 ...) are exact in 20ths.
            assert k == min(n - 2, max(1, round(n * round(rate * 20) / 20)))
        assert sampler.max_predictions == plan.num_masked.max()


@pytest.mark.parametrize(("mask", "change"), [(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.3, 0.3)])
def test_actions_and_replacements(mask: float, change: float) -> None:
    vocab_size, count = 105, 30_000
    config = SamplerConfig(mask_share=mask, random_share=change, max_len=63)
    batch = Sampler(equal_sentences(30, vocab_size), config).packed(0, count)
    new, old = batch.input_ids[batch.masked_positions], batch.labels
    masked, kept = int((new == Special().mask).sum()), int((new == old).sum())
    same = 1 / (vocab_size - 5)  # a random token can be the original one
    shares = [mask, 1 - mask - change + change * same, change * (1 - same)]
    observed = [masked, kept, len(new) - masked - kept]
    for seen, share in zip(observed, shares, strict=True):
        assert surely(stats.binomtest(seen, len(new), min(1.0, max(0.0, share))).pvalue)
    replaced = new[(new != old) & (new != Special().mask)]
    if len(replaced):
        counts = torch.bincount(replaced, minlength=vocab_size)
        assert (counts[:5] == 0).all()
        assert surely(stats.chisquare(counts[5:].numpy()).pvalue)


@pytest.mark.parametrize("masking", ["whole_word", "span"])
def test_whole_words(masking: str) -> None:
    """Words are masked whole, never more than k tokens; if the only word is longer, nothing is predicted."""
    config = SamplerConfig(masking=masking, max_len=60, segments="fill")
    corpus = make_corpus(some_documents(6), VOCABULARY, continuation=CONTINUATION)
    batch = Sampler(corpus, config).packed(0, 2000)
    ids = batch.input_ids.clone()
    ids[batch.masked_positions] = batch.labels
    chosen = torch.zeros(len(ids), dtype=torch.bool)
    chosen[batch.masked_positions] = True
    starts = set(batch.cu_seqlens.tolist())
    first_sep = (batch.token_type_ids.diff() == 1).nonzero().flatten().tolist()
    segment_starts = {s + 1 for s in starts} | {s + 1 for s in first_sep}
    inner = [
        i
        for i in range(1, len(ids))
        if int(ids[i]) in CONTINUATION and i not in segment_starts and batch.position_ids[i] > 0
    ]
    inner = torch.tensor(inner)
    assert torch.equal(chosen[inner], chosen[inner - 1])
    lengths, predicted = batch.cu_seqlens.diff(), batch.cu_masked.diff()
    assert (predicted <= (lengths * 0.15).round().clamp(min=1)).all()
    assert 0.6 < float(predicted.sum() / (lengths * 0.15).round().sum()) <= 1

    word = [[[10, *[30] * 20], [10, *[30] * 20]] for _ in range(2)]
    none = Sampler(make_corpus(word, VOCABULARY, continuation=CONTINUATION), config).packed(0, 9)
    assert none.labels.shape == (0,)
    assert none.cu_masked.tolist() == [0] * 10


def span_lengths_law() -> dict[int, float]:
    weights = {n: 0.8 ** (n - 1) for n in range(1, 11)}
    return {n: weight / sum(weights.values()) for n, weight in weights.items()}


def surely_follows(observed: Counter[Any], law: dict[Any, float]) -> bool:
    """A chi-squared test; outcomes that are expected fewer than ten times count as one."""
    count = observed.total()
    assert observed.keys() <= law.keys()
    assert sum(law.values()) == pytest.approx(1)
    common = [outcome for outcome, share in law.items() if share * count >= 10]
    seen, expected = [observed[outcome] for outcome in common], [law[outcome] * count for outcome in common]
    if len(common) < len(law):
        seen, expected = [*seen, count - sum(seen)], [*expected, count - sum(expected)]
    return surely(stats.chisquare(seen, expected).pvalue)


def test_lengths_and_actions_of_spans() -> None:
    """The text is so long that spans hardly ever meet: each run of predictions is one span."""
    k, vocab_size, count = 10, 60_000, 3000
    text = np.random.default_rng(3).integers(5, vocab_size, (1, 1, 16_382)).tolist()
    config = SamplerConfig(
        objective="none", segments="sentence", masking="span", max_len=16_384, mlm_probability=k / 16_384
    )
    sampler = Sampler(make_corpus(text, vocab_size, Special()), config)
    splits: Counter[tuple[int, ...]] = Counter()
    actions: Counter[str] = Counter()
    mixed = 0
    for first in range(0, count, 250):
        batch = sampler.padded(first, 250)
        assert (batch.mlm_weights == 1).all()
        assert batch.labels.shape == (250, k)
        new = batch.input_ids.gather(1, batch.masked_positions)
        kinds = np.where(new == Special().mask, "mask", np.where(new == batch.labels, "kept", "random"))
        for positions, kind in zip(batch.masked_positions.numpy(), kinds, strict=True):
            spans = np.split(kind, np.flatnonzero(np.diff(positions) > 1) + 1)
            splits[tuple(sorted(map(len, spans)))] += 1
            mixed += sum(len(set(span)) > 1 for span in spans)
            actions.update(span[0] for span in spans)
    assert mixed <= 0.005 * actions.total()
    assert surely_follows(actions, {"mask": 0.8, "kept": 0.1, "random": 0.1})

    law: Counter[tuple[int, ...]] = Counter()

    def split(lengths: tuple[int, ...], share: float) -> None:
        left = k - sum(lengths)
        if not left:
            law[tuple(sorted(lengths))] += share
            return
        for length, probability in span_lengths_law().items():
            split((*lengths, min(length, left)), share * probability)

    split((), 1.0)
    assert surely_follows(splits, law)


@pytest.mark.parametrize(("lengths", "rate", "k"), [((7,), 0.3333, 3), ((4, 4), 0.2727, 3), ((5, 5), 0.0, 1)])
def test_places_of_spans(lengths: tuple[int, ...], rate: float, k: int) -> None:
    """The predicted positions follow the computed law: a span starts at any position that isn't predicted yet."""
    count, vocab_size, candidates = 60_000, 99, sum(lengths)
    ends = {
        c: end
        for end, length in zip(itertools.accumulate(lengths), lengths, strict=True)
        for c in range(end - length, end)
    }
    law: Counter[frozenset[int]] = Counter()

    def start(taken: frozenset[int], share: float) -> None:
        if len(taken) == k:
            law[taken] += share
            return
        free = [c for c in range(candidates) if c not in taken]
        for first, (length, probability) in itertools.product(free, span_lengths_law().items()):
            stop = min([ends[first], first + length, first + k - len(taken), *[c for c in taken if c > first]])
            start(taken | frozenset(range(first, stop)), share * probability / len(free))

    start(frozenset(), 1.0)

    rng = np.random.default_rng(4)
    documents = rng.integers(5, vocab_size, (500, len(lengths), lengths[0])).tolist()
    objective = "sop" if len(lengths) == 2 else "none"
    config = SamplerConfig(
        objective=objective, segments="sentence", masking="span", mlm_probability=rate, max_len=candidates + 3
    )
    batch = Sampler(make_corpus(documents, vocab_size, Special()), config).padded(0, count)
    assert batch.masked_positions.shape == (count, k)
    candidate = batch.masked_positions - 1 - (batch.masked_positions > lengths[0]).long()
    assert surely_follows(Counter(map(frozenset, candidate.tolist())), law)


def test_full_sentences() -> None:
    """Without pairs, an example has by default as many consecutive sentences as fit, across documents."""
    documents, max_len = some_documents(7), 40
    config = SamplerConfig(objective="none", max_len=max_len)
    sentences = list(itertools.chain.from_iterable(divide(documents, config)))
    sampler = Sampler(make_corpus(documents, VOCABULARY), config)
    batch = sampler.packed(0, sampler.num_examples)
    assert not batch.token_type_ids.any()
    ids = batch.input_ids.clone()
    ids[batch.masked_positions] = batch.labels
    expected = []
    for first in range(len(sentences)):
        room = max_len - 2
        text = sentences[first][:room]
        for sentence in sentences[first + 1 :]:
            if len(text) + len(sentence) > room:
                break
            text = text + sentence
        expected.append([SCATTERED.cls, *text, SCATTERED.sep])
    found = [ids[s:e].tolist() for s, e in itertools.pairwise(batch.cu_seqlens.tolist())]
    assert sorted(found) == sorted(expected)


def test_every_choice_on_one_corpus(tmp_path: Any) -> None:
    """Objective, segments, masking and rates need no new corpus."""
    rng = random.Random(8)
    words = ["crane", "cranes", "driver", "drove", "building", "rebuilt", "yard"]
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join("\n".join(" ".join(rng.choices(words, k=6)) for _ in range(5)) for _ in range(12)))
    cache = tmp_path / "cache"
    config = CorpusConfig(tokenizer="wordpiece", vocab_size=40, text_form="lines")
    corpus = load_corpus(text, config=config, cache_dir=cache)
    built = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    tokens = corpus.tokens.tolist()
    sentences = [tokens[s:e] for s, e in itertools.pairwise(corpus.sentence_offsets)]
    documents = [sentences[s:e] for s, e in itertools.pairwise(corpus.document_offsets)]
    continuation = set(np.flatnonzero(corpus.continuation).tolist())
    assert continuation
    for config, rate in itertools.product(CONFIGS[::2], (0.0, 0.15, 0.4, 1.0)):
        config = dataclasses.replace(config, mlm_probability=rate)
        reference = Reference(documents, config, corpus.vocab_size, corpus.special_ids, continuation)
        if reference.anchors:
            check(Sampler(corpus, config), reference, 0, 4)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == built


def test_filled_segments() -> None:
    """Lengths of examples filled with one-token sentences: the target is met exactly, short ones are uniform."""
    config = SamplerConfig(segments="fill", short_seq_prob=0.3, max_len=20)
    sampler = Sampler(make_corpus(one_token_sentences([5000, 5000]), 11_000, Special()), config)
    count = 20_000
    batch = sampler.packed(0, count)
    tokens = batch.cu_seqlens.diff() - 3
    # An anchor near the text's beginning or end, or a negative near an end, can't reach its target.
    share = torch.bincount(tokens, minlength=18)[2:].numpy() / count
    expected = np.full(16, 0.3 / 16)
    expected[-1] += 0.7
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / count)).all()
    # A's length is uniform in 1 ... target - 1.
    a = torch.tensor([int((batch.token_type_ids[s:e] == 0).sum()) - 2 for s, e in itertools.pairwise(batch.cu_seqlens)])
    full = a[tokens == 17]
    assert surely(stats.chisquare(torch.bincount(full, minlength=17)[1:].numpy()).pvalue)


# --- The notebook ---


class Rows(NamedTuple):
    """Examples padded as in the notebook, and their original tokens."""

    input_ids: torch.Tensor
    original: torch.Tensor
    segments: torch.Tensor
    lengths: torch.Tensor
    positions: torch.Tensor
    weights: torch.Tensor
    is_next: torch.Tensor

    def segment_lengths(self, is_next: bool) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = self.is_next == is_next
        b = self.segments[chosen].sum(1) - 1
        return self.lengths[chosen] - b - 3, b

    def texts(self, is_next: bool) -> set[tuple[int, ...]]:
        chosen = (self.is_next == is_next).nonzero().flatten().tolist()
        return {tuple(self.original[i, : self.lengths[i]].tolist()) for i in chosen}

    def actions(self, mask: int) -> list[int]:
        """Predictions that [MASK] replaced, that kept their token, and that another token replaced."""
        valid = self.weights > 0
        new = self.input_ids.gather(1, self.positions)[valid]
        old = self.original.gather(1, self.positions)[valid]
        masked, kept = int((new == mask).sum()), int((new == old).sum())
        return [masked, kept, len(new) - masked - kept]


def original_ids(input_ids: torch.Tensor, positions: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> Any:
    original = input_ids.clone()
    rows = torch.arange(len(positions))[:, None].expand_as(positions)
    original[rows[weights > 0], positions[weights > 0]] = labels[weights > 0]
    return original


@pytest.fixture(scope="module")
def notebook() -> Any:
    """The notebook's examples of WikiText-2, by its own code, and our sampler's of the same paragraphs."""
    before = random.getstate()
    random.seed(1)
    data, paragraphs = notebook_dataset(64), notebook_paragraphs()
    random.setstate(before)
    ids, segments, lengths, positions, weights, labels, is_next = (
        torch.stack(column)
        for column in (
            data.all_token_ids,
            data.all_segments,
            data.valid_lens,
            data.all_pred_positions,
            data.all_mlm_weights,
            data.all_mlm_labels,
            data.nsp_labels,
        )
    )
    theirs = Rows(
        ids,
        original_ids(ids, positions, labels, weights),
        segments,
        lengths.long(),
        positions,
        weights,
        is_next.bool(),
    )
    vocab = data.vocab
    special = Special(*(vocab[f"<{word}>"] for word in ("pad", "unk", "cls", "sep", "mask")))
    documents = [[vocab[sentence.split()] for sentence in paragraph] for paragraph in paragraphs]
    corpus = make_corpus(documents, len(vocab), special)
    sampler = Sampler(corpus, SamplerConfig(negatives="any", too_long="drop", max_len=64))
    batch = sampler.padded(0, 8 * sampler.num_examples)
    ours = Rows(
        batch.input_ids,
        original_ids(batch.input_ids, batch.masked_positions, batch.labels, batch.mlm_weights),
        batch.token_type_ids,
        batch.attention_mask.sum(1),
        batch.masked_positions,
        batch.mlm_weights,
        batch.next_sentence_label == 0,
    )
    return theirs, ours, sampler, special, documents


def test_notebook_pairs(notebook: Any) -> None:
    """The same true pairs in the same layout, wrong ones with the same lengths, half of each."""
    theirs, ours, sampler, special, documents = notebook
    assert ours.input_ids.shape[1] == theirs.input_ids.shape[1] == 64
    fitting = {
        (special.cls, *a, special.sep, *b, special.sep)
        for document in documents
        for a, b in itertools.pairwise(document)
        if len(a) + len(b) + 3 <= 64
    }
    assert theirs.texts(True) <= fitting
    assert ours.texts(True) <= fitting
    assert len(ours.texts(True)) > 0.99 * len(fitting)  # in 8 epochs, 1 pair in 256 is never a true one
    assert surely(stats.binomtest(int(theirs.is_next.sum()), sampler.num_examples, 0.5).pvalue)
    assert surely(stats.binomtest(int(ours.is_next.sum()), len(ours.is_next), 0.5).pvalue)
    for is_next in (True, False):
        for their, our in zip(theirs.segment_lengths(is_next), ours.segment_lengths(is_next), strict=True):
            assert surely(stats.ks_2samp(their.numpy(), our.numpy()).pvalue)
    for rows in (theirs, ours):
        a, b = rows.segment_lengths(True)
        columns = torch.arange(64)
        of_b = (columns >= a[:, None] + 2) & (columns < (a + b)[:, None] + 3)
        assert torch.equal(rows.segments[rows.is_next], of_b.long())


def test_notebook_masks(notebook: Any) -> None:
    """The same number of predictions for each length, the same positions, replacements and padding."""
    theirs, ours, sampler, special, _ = notebook
    assert ours.positions.shape[1] == theirs.positions.shape[1] == sampler.max_predictions == 10
    their_counts, our_counts = (
        set(zip(rows.lengths.tolist(), rows.weights.sum(1).tolist(), strict=True)) for rows in (theirs, ours)
    )
    assert their_counts == our_counts
    assert surely(stats.chi2_contingency([theirs.actions(special.mask), ours.actions(special.mask)]).pvalue)
    places = [(rows.positions / rows.lengths[:, None])[rows.weights > 0] for rows in (theirs, ours)]
    assert surely(stats.ks_2samp(places[0].numpy(), places[1].numpy()).pvalue)
    for rows in (theirs, ours):
        assert (rows.positions[rows.weights == 0] == 0).all()
        assert (rows.input_ids[torch.arange(64) >= rows.lengths[:, None]] == special.pad).all()


# --- Invalid input ---


@pytest.mark.parametrize(
    ("documents", "settings", "message"),
    [
        ([], {}, "the corpus is empty"),
        ([[[9, 9]]], {}, "no two sentences in one document.*--objective none"),
        ([[[9]], [[9]], [[9]]], {"objective": "sop"}, "no two sentences in one document"),
        ([[[9], [9]]], {}, "one document.*--negatives any"),
        ([[[9] * 8, [9] * 9], [[9] * 8, [9] * 7]], {"too_long": "drop", "max_len": 17}, "raise it to 18"),
    ],
)
def test_a_corpus_without_examples_is_refused(documents: Any, settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        Sampler(make_corpus(documents, 20), SamplerConfig(**settings))
    assert "\n" not in str(error.value)


def test_a_damaged_corpus_is_refused() -> None:
    good = make_corpus(some_documents(1), VOCABULARY)
    for field in ("sentence_offsets", "document_offsets"):
        for damage in (lambda a: a + 1, lambda a: a[:-1], lambda a: a[[0, *range(2, len(a) - 1), 1, -1]]):
            with pytest.raises(InputError, match=f"damaged.*{field}"):
                Sampler(dataclasses.replace(good, **{field: damage(getattr(good, field))}), SamplerConfig())
    small = dataclasses.replace(good, vocab_size=VOCABULARY - 1, continuation=good.continuation[:-1])
    with pytest.raises(InputError, match="tokens that the vocabulary lacks"):
        Sampler(small, SamplerConfig(masking="whole_word"))
    with pytest.raises(InputError, match="nothing but special tokens"):
        Sampler(make_corpus([[[1], [1]], [[1]]], 5, Special()), SamplerConfig())


def test_invalid_example_numbers_are_refused() -> None:
    sampler = Sampler(make_corpus(some_documents(1), VOCABULARY), SamplerConfig(max_len=512))
    for first, count in ((-1, 3), (0, -1), (2**54, 1)):
        with pytest.raises(ValueError, match="examples from number"):
            sampler.packed(first, count)
    with pytest.raises(InputError, match="too large"):
        sampler.plan(0, 2**22)


def test_the_extension_checks_its_tensors() -> None:
    sampler = Sampler(make_corpus(some_documents(1), VOCABULARY), SamplerConfig())
    good = sampler.packed(0, 8)
    first, examples = torch.zeros(1, dtype=torch.int64), torch.empty(8, 5, dtype=torch.int64)
    plan, packed = sampler._native.plan, sampler._native.packed
    with pytest.raises(TypeError, match=r"cu_masked must be int32, not torch\.int64"):
        plan(first, examples, good.cu_seqlens, good.cu_masked.long())
    with pytest.raises(ValueError, match="cu_seqlens must have the shape"):
        plan(first, examples, good.cu_seqlens[:-1], good.cu_masked)
    plan(first, examples, good.cu_seqlens, good.cu_masked)
    packed(first, examples, good)
    with pytest.raises(ValueError, match="row_keys must have the shape"):
        packed(first, examples, good._replace(row_keys=good.row_keys[1:]))
    with pytest.raises(ValueError, match="masked_positions must not share memory with labels"):
        packed(first, examples, good._replace(labels=good.masked_positions))
    with pytest.raises(ValueError, match="have room for what the plan says"):
        packed(first, examples, good._replace(cu_seqlens=good.cu_seqlens - 1))
    with pytest.raises(ValueError, match="have room for what the plan says"):
        packed(first, examples, good._replace(labels=good.labels[1:], masked_positions=good.masked_positions[1:]))
    moved = good.cu_masked.clone()
    moved[1] += 1
    with pytest.raises(ValueError, match="cu_masked is not these examples' plan"):
        packed(first, examples, good._replace(cu_masked=moved))
    examples[3, 1] = 2**40
    with pytest.raises(ValueError, match=r"examples\[3\] is not an example of this corpus"):
        packed(first, examples, good)


def test_where_a_corpus_goes() -> None:
    """It goes on the GPU if half of its memory stays for training, and there is room now."""
    gb = 10**9
    assert _residence(40 * gb, 80 * gb, 80 * gb) == (True, "40 GB on the GPU")
    assert _residence(41 * gb, 80 * gb, 80 * gb)[0] is False
    assert _residence(10 * gb, 50 * gb, 80 * gb)[0] is True
    assert _residence(10 * gb, 40 * gb, 80 * gb) == (
        False,
        "10 GB in pinned host memory (the GPU has 40 GB free, 40 GB of its memory are kept for the training)",
    )


def test_the_extension_checks_its_corpus() -> None:
    corpus = make_corpus(some_documents(1), VOCABULARY)
    good = {
        "options": sampler_options(corpus, SamplerConfig()),
        "tokens": torch.from_numpy(corpus.tokens),
        "sentence_offsets": torch.from_numpy(corpus.sentence_offsets),
        "document_offsets": torch.from_numpy(corpus.document_offsets),
        "anchors": None,
        "continuation": None,
    }
    native.Sampler(**good)
    for field in ("sentence_offsets", "document_offsets"):
        with pytest.raises(ValueError, match=f"{field} must ascend from 0 to"):
            native.Sampler(**{**good, field: good[field].flip(0)})
    with pytest.raises(ValueError, match="anchors must be below"):
        native.Sampler(**{**good, "anchors": torch.tensor([2**40])})


# --- On a GPU ---


@on_gpu
@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_gpu_equals_cpu(config: SamplerConfig) -> None:
    for dtype in (np.uint16, np.uint32):
        corpus = make_corpus(some_documents(1), VOCABULARY, continuation=CONTINUATION, dtype=dtype)
        cpu, gpu = Sampler(corpus, config), Sampler(corpus, config, "cuda")
        for first, count in ((0, 300), (2**40, 1), (5, 0)):
            for method in ("packed", "padded"):
                ours, theirs = getattr(gpu, method)(first, count), getattr(cpu, method)(first, count)
                for field, tensor in theirs._asdict().items():
                    if isinstance(tensor, torch.Tensor):
                        assert getattr(ours, field).is_cuda
                        assert torch.equal(getattr(ours, field).cpu(), tensor), field


@on_gpu
def test_gpu_shared_memory() -> None:
    """max_len 4096 takes more than a kernel has by default; 65536 more than any device has."""
    corpus = make_corpus(some_documents(1), VOCABULARY, continuation=CONTINUATION)
    long = SamplerConfig(max_len=4096, segments="fill", masking="span")
    assert torch.equal(
        Sampler(corpus, long, "cuda").packed(0, 50).input_ids.cpu(), Sampler(corpus, long).packed(0, 50).input_ids
    )
    with pytest.raises(RuntimeError, match=r"max_len 65536 needs \d+ bytes of shared memory, and the device has \d+"):
        Sampler(corpus, SamplerConfig(max_len=65536), "cuda").packed(0, 2)


@on_gpu
@pytest.mark.parametrize("too_long", ["truncate", "drop"])
def test_a_corpus_in_pinned_memory_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, too_long: str
) -> None:
    """Its tokens are in a mapped file, as a built corpus's are. CUDA pins them there, or a warning says it does not."""
    corpus, config = make_corpus(some_documents(1), VOCABULARY), SamplerConfig(too_long=too_long)
    corpus.tokens.tofile(tmp_path / "tokens.bin")
    corpus = dataclasses.replace(corpus, tokens=np.memmap(tmp_path / "tokens.bin", corpus.tokens.dtype, "r"))
    monkeypatch.setattr(sampler_module, "TRAINING_SHARE", 1.0)
    gpu = Sampler(corpus, config, "cuda")
    assert "pinned host memory" in gpu.residence
    if gpu._pinned["tokens"].owner:
        assert caplog.messages == []
    else:
        [warning] = caplog.messages
        assert warning.startswith("the corpus's file cannot be pinned where it is mapped (")
    for ours, theirs in zip(gpu.packed(5, 40), Sampler(corpus, config).packed(5, 40), strict=True):
        assert ours == theirs if isinstance(ours, int) else torch.equal(ours.cpu(), theirs)
