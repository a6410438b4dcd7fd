"""(corpus, seed, example numbers) -> batch: a pure function, bit for bit the same on a CPU and a GPU.

docs/sampling.md defines an example. Nothing depends on what was sampled before, so any batch can be made at any time,
in any order, from its example numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertfast._native import native
from bertfast.config import SamplerConfig
from bertfast.data.tokenizing.special_tokens import SpecialTokens
from bertfast.errors import InputError
from bertfast.sampling.batch import PackedBatch, PaddedBatch
from bertfast.sampling.long_sentences import Sentences, divided, unreached
from bertfast.sampling.pinned_memory import as_tensor, pinned

# The share of a GPU's memory reserved for the model and its activations, however large the corpus is.
TRAINING_SHARE = 0.5


class TokenisedCorpus(Protocol):
    """Documents of sentences of token ids."""

    @property
    def tokens(self) -> npt.NDArray[Any]:
        """Token ids, uint16 or uint32."""

    @property
    def sentence_offsets(self) -> npt.NDArray[np.int64]:
        """(sentences + 1,), in tokens."""

    @property
    def document_offsets(self) -> npt.NDArray[np.int64]:
        """(documents + 1,), in sentences."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def special_ids(self) -> SpecialTokens: ...
    @property
    def continuation(self) -> npt.NDArray[Any]:
        """(vocab_size,): 1, or True, for tokens that continue a word."""


class Plan(NamedTuple):
    """The sizes of a range of examples; int32, on the CPU."""

    lengths: Tensor
    """(count,) tokens of each example, special ones included."""
    num_masked: Tensor
    """(count,) predictions of each example."""


class _Planned(NamedTuple):
    """A range of examples, planned on the device of `examples`."""

    first_example: Tensor
    """(1,) int64."""
    examples: Tensor
    """(count, 5) int64: a_begin, a_len, b_begin, b_len, next_sentence_label."""
    cu_seqlens: Tensor
    cu_masked: Tensor


class Sampler:
    """Batches of a corpus's examples, by number.

    Args:
        corpus: a TokenisedCorpus, whose arrays may be memory-mapped. Sentences too long for an example are divided
            (sampling/long_sentences.py).
        config: how examples are made.
        device: where batches are made, "cpu" or a CUDA device. The corpus's arrays are copied to a CUDA device once or,
            if they would leave it too little memory, to pinned host memory that it reads; `residence` says which.

    Raises:
        InputError: no example can be drawn from the corpus with this configuration.
    """

    def __init__(self, corpus: TokenisedCorpus, config: SamplerConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        _check(corpus)
        self._sentences = divided(Sentences(corpus.sentence_offsets, corpus.document_offsets), config)
        _check_pairs(self._sentences, config)
        options = _options(corpus, config)
        arrays = {"tokens": corpus.tokens, **self._sentences._asdict()}
        if config.too_long == "drop":
            arrays["anchors"] = _fitting_pairs(self._sentences, config.max_len)
        if config.masking != "token":
            arrays["continuation"] = corpus.continuation.astype(np.uint8)
        tables = {name: as_tensor(array) for name, array in arrays.items()}
        self._host = native.Sampler(options, **tables)
        self._native, self._made_on = self._host, self.device
        self.residence = ""
        if self.device.type != "cpu":
            size = sum(table.nbytes for table in tables.values())
            fits, self.residence = _residence(size, *torch.cuda.mem_get_info(self.device))
            large = () if fits else ("tokens", "sentence_offsets", "anchors")
            self._pinned = {name: pinned(array) for name, array in arrays.items() if name in large}
            moved = {
                name: self._pinned[name].tensor if name in self._pinned else table.to(self.device)
                for name, table in tables.items()
            }
            self._native = native.Sampler(options, **moved)

    def make_on_host(self) -> None:
        """Makes all later batches on the host and copies them to the device. `packed_within` can't be used then."""
        self._native, self._made_on = self._host, torch.device("cpu")

    @property
    def num_examples(self) -> int:
        """Examples in an epoch: example g belongs to epoch g // num_examples."""
        return int(self._host.num_examples)

    def unreached(self) -> float:
        """The share of the corpus's tokens that are in no example."""
        return unreached(self._sentences, self.config)

    @property
    def max_predictions(self) -> int:
        """The most predictions that an example can have."""
        return int(self._host.max_predictions)

    def plan(self, first_example: int, count: int) -> Plan:
        """Lengths and numbers of predictions of the examples first_example .. first_example + count - 1.

        Computed on the host, so that nothing waits for the device.
        """
        planned = self._plan(first_example, count, self._host, torch.device("cpu"))
        return Plan(planned.cu_seqlens.diff(), planned.cu_masked.diff())

    def packed(self, first_example: int, count: int) -> PackedBatch:
        """The examples first_example .. first_example + count - 1, one after another."""
        host = self._plan(first_example, count, self._host, torch.device("cpu"))
        planned = host
        if self._native is not self._host:
            planned = self._plan(first_example, count, self._native, self.device)
        return self._packed(planned, int(host.cu_seqlens[-1]), int(host.cu_masked[-1]), torch.empty)

    def packed_within(self, first_example: Tensor, count: int, tokens: int, predictions: int) -> PackedBatch:
        """Like `packed`, but computed entirely on the device that makes the batch; the host only gives its sizes.

        Args:
            first_example: (1,) int64, on this sampler's device.
            count: number of examples.
            tokens: length of the tensors of tokens, padded with zeros. The caller makes sure, with `plan`, that the
                examples have no more tokens: a GPU doesn't check.
            predictions: length of the tensors of predictions, likewise.
        """
        return self._packed(self._plan_from(first_example, count, self._native), tokens, predictions, torch.zeros)

    def predictions(self, first_example: Tensor, count: int) -> Tensor:
        """(1,) int32: the number of predictions of `count` examples, computed on `first_example`'s device."""
        return self._plan_from(first_example, count, self._native).cu_masked[-1:]

    def _packed(self, planned: _Planned, tokens: int, predictions: int, make: Callable[..., Tensor]) -> PackedBatch:
        def column(size: int) -> Tensor:
            return make(size, dtype=torch.int64, device=self._made_on)

        count = planned.examples.shape[0]
        batch = PackedBatch(
            input_ids=column(tokens),
            token_type_ids=column(tokens),
            position_ids=column(tokens),
            cu_seqlens=planned.cu_seqlens,
            masked_positions=column(predictions),
            cu_masked=planned.cu_masked,
            labels=column(predictions),
            next_sentence_label=column(0 if self.config.objective == "none" else count),
            row_keys=column(tokens),
            max_seqlen=self.config.max_len,
        )
        with torch.cuda.device_of(planned.examples):
            self._native.packed(planned.first_example, planned.examples, batch)
        moved: dict[str, Any] = {
            name: value.to(self.device) for name, value in batch._asdict().items() if isinstance(value, Tensor)
        }
        return batch._replace(**moved)

    def padded(self, first_example: int, count: int) -> PaddedBatch:
        """The examples first_example .. first_example + count - 1, one per row."""
        planned = self._plan(first_example, count, self._native, self._made_on)
        tokens, predictions = (count, self.config.max_len), (count, self.max_predictions)
        batch = PaddedBatch(
            input_ids=self._empty(*tokens),
            token_type_ids=self._empty(*tokens),
            attention_mask=self._empty(*tokens),
            masked_positions=self._empty(*predictions),
            labels=self._empty(*predictions),
            mlm_weights=self._empty(*predictions, dtype=torch.float32),
            next_sentence_label=self._empty(0 if self.config.objective == "none" else count),
        )
        with torch.cuda.device_of(planned.examples):
            self._native.padded(planned.first_example, planned.examples, batch)
        return PaddedBatch(*(tensor.to(self.device) for tensor in batch))

    def _empty(self, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self._made_on)

    def _plan(self, first_example: int, count: int, sampler: Any, device: torch.device) -> _Planned:
        max_len = self.config.max_len
        if first_example < 0 or count < 0 or (first_example + count) * max_len >= 1 << 63:
            raise ValueError(f"no {count} examples from number {first_example}: numbers are 0 to 2^63 / max_len")
        if count * max_len >= 1 << 31:
            raise InputError(f"a batch of {count} examples of {max_len} tokens is too large: make it smaller")
        return self._plan_from(torch.full((1,), first_example, dtype=torch.int64, device=device), count, sampler)

    def _plan_from(self, first_example: Tensor, count: int, sampler: Any) -> _Planned:
        device = first_example.device
        planned = _Planned(
            first_example,
            torch.empty((count, native.EXAMPLE_FIELDS), dtype=torch.int64, device=device),
            torch.empty(count + 1, dtype=torch.int32, device=device),
            torch.empty(count + 1, dtype=torch.int32, device=device),
        )
        with torch.cuda.device_of(first_example):
            sampler.plan(*planned)
        return planned


def _residence(size: int, free: int, total: int) -> tuple[bool, str]:
    """Whether a corpus of `size` bytes goes on a GPU with this much memory, and where it goes in words."""
    reserved = int(total * TRAINING_SHARE)
    if size <= free - reserved:
        return True, f"{size / 1e9:.3g} GB on the GPU"
    return False, (
        f"{size / 1e9:.3g} GB in pinned host memory "
        f"(the GPU has {free / 1e9:.3g} GB free, {reserved / 1e9:.3g} GB of its memory are kept for the training)"
    )


def _check(corpus: TokenisedCorpus) -> None:
    for name, offsets, end in (
        ("sentence_offsets", corpus.sentence_offsets, len(corpus.tokens)),
        ("document_offsets", corpus.document_offsets, len(corpus.sentence_offsets) - 1),
    ):
        # The kernels take every index from these, so all must be within bounds.
        if len(offsets) < 2:
            raise InputError("the corpus is empty: give at least one sentence")
        if offsets[0] != 0 or offsets[-1] != end or not (np.diff(offsets) > 0).all():
            raise InputError(f"the corpus is damaged: its {name} don't fit; build it again")
    if int(corpus.tokens.max()) >= corpus.vocab_size:
        raise InputError("the corpus is damaged: it holds tokens that the vocabulary lacks; build it again")
    if corpus.vocab_size <= len(set(corpus.special_ids)):
        raise InputError("the vocabulary holds nothing but special tokens: give more text or a lower --min-freq")


def _check_pairs(sentences: Sentences, config: SamplerConfig) -> None:
    documents = len(sentences.document_offsets) - 1
    if config.objective != "none":
        if len(sentences.sentence_offsets) - 1 == documents:
            raise InputError(
                "the corpus has no two sentences in one document, and so no sentence pair: give longer documents "
                "(or --text-form lines, where each line is a sentence), or train without pairs (--objective none)"
            )
        if config.objective == "nsp" and config.negatives == "other" and documents == 1:
            raise InputError(
                "the corpus is one document, and a wrong next sentence comes from another: give more "
                "documents, or draw it from any (--negatives any)"
            )


def _options(corpus: TokenisedCorpus, config: SamplerConfig) -> Any:
    special = corpus.special_ids
    return native.SamplerOptions(
        seed=config.seed,
        objective=config.objective,
        max_len=config.max_len,
        any_negative=config.negatives == "any",
        drop=config.too_long == "drop",
        fill=config.fills_segments,
        masking=config.masking,
        short_below=round(config.short_seq_prob * 2**32),
        mask_millionths=round(config.mlm_probability * 10**6),
        mask_below=round(config.mask_share * 2**32),
        random_below=round((config.mask_share + config.random_share) * 2**32),
        vocab_size=corpus.vocab_size,
        pad=special.pad,
        cls=special.cls,
        sep=special.sep,
        mask=special.mask,
        specials=sorted(set(special)),
    )


def _fitting_pairs(sentences: Sentences, max_len: int) -> npt.NDArray[np.int64]:
    """The numbers of the adjacent pairs that fit into max_len, ascending."""
    lengths = np.diff(sentences.sentence_offsets)
    pair_lengths = lengths[:-1] + lengths[1:] + 3
    pair_lengths[sentences.document_offsets[1:-1] - 1] = np.iinfo(np.int64).max  # spans two documents
    first = np.flatnonzero(pair_lengths <= max_len)
    if not len(first):
        raise InputError(
            f"no sentence pair fits --max-len {max_len}: raise it to {pair_lengths.min()} or more, "
            "or truncate (--too-long truncate)"
        )
    return first - np.searchsorted(sentences.document_offsets, first, side="right") + 1
