"""Encodes texts: hidden states of every token, and one vector for each text."""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertfast._native import native
from bertfast.config import EncodeConfig
from bertfast.data.normal_form import nfc
from bertfast.data.tokenizing.tokenizer import Encoding, Tokenizer
from bertfast.distributed.devices import choose_precision
from bertfast.distributed.threads import map_on_cores
from bertfast.errors import InputError
from bertfast.hub.sentence_transformers import Modules, load_modules
from bertfast.hub.transformers import load_pretrained
from bertfast.model import Bert, head_rows, pooled_vectors
from bertfast.ops.linear import keep_copies
from bertfast.sampling.batch import PackedBatch

logger = logging.getLogger(__name__)

# Tokens in a batch of `embed` on a CPU: enough for efficient matrix products, few enough to stay in a core's cache.
_BATCH_TOKENS = 2048
# Tokens in a batch on a GPU, which would be idle with fewer.
_GPU_BATCH_TOKENS = 1 << 16
# The number of rows of every matrix product in `embed` is a multiple of this. Matrix libraries compute the rows left
# over after full blocks in another order, so a row's bits would depend on how many others there are.
_ROWS = 16


class Encoder:
    """A pretrained model and its tokenizer.

    >>> encoder = Encoder.load("runs/wiki")
    >>> encoder("a crane is flying").shape                       # [CLS] a crane is flying [SEP]
    torch.Size([1, 6, 128])
    >>> encoder("a crane driver came", "he just left").shape
    torch.Size([1, 10, 128])
    >>> encoder.embed(["a crane is flying", "he just left"]).shape
    torch.Size([2, 128])
    """

    def __init__(self, model: Bert, tokenizer: Tokenizer, modules: Modules = Modules({})) -> None:  # noqa: B008
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_len = model.max_len
        self._modules = modules

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Encoder:
        """Loads a folder that bertfast, transformers or sentence-transformers saved.

        If it has modules of sentence-transformers, they determine the defaults of `embed`. Raises InputError if it
        holds no model.
        """
        pretrained = load_pretrained(folder)
        modules = load_modules(pretrained.folder, pretrained.model.config, pretrained.tokenizer)
        if modules.settings:
            chosen = ", ".join(f"{name} {value}" for name, value in modules.settings.items())
            logger.info("defaults for vectors, from %s: %s", pretrained.folder / "modules.json", chosen)
        return cls(pretrained.model.to(device), pretrained.tokenizer, modules)

    @property
    def device(self) -> torch.device:
        return self.model.embeddings.word.weight.device

    def __call__(self, text: str, pair: str | None = None, layer: int = -1) -> Tensor:
        """Hidden states of `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`: (1, tokens, hidden), float32.

        `layer`: 0 is the embeddings' output, -1 the last layer's, as in transformers' `hidden_states`. The text is
        taken as it is, so that `offsets` fit it; training and `embed` convert theirs to Unicode NFC. Raises InputError
        for more tokens than the model takes, and for a pair if it has one token type.
        """
        ids, types, _ = self._encode(text, pair)
        layer = EncodeConfig(layer=layer).layer_of(self.model.config)
        with torch.inference_mode():
            states = self.model.hidden_states(_packed([ids], self.device, types), torch.float32, layer=layer)
        return states.cpu().unsqueeze(0)

    def tokens(self, text: str, pair: str | None = None) -> list[str]:
        """The tokens whose hidden states `__call__` returns."""
        return self.tokenizer.tokens(self._encode(text, pair).ids)

    def offsets(self, text: str, pair: str | None = None) -> list[tuple[int, int]]:
        """The (begin, end) characters of each of `tokens` in its text; (0, 0) for `[CLS]` and `[SEP]`."""
        return self._encode(text, pair).offsets

    def embed(self, texts: str | Iterable[str], **settings: Any) -> Tensor:
        """A vector for each text, in the order given: (texts, hidden), float32 on the CPU; (hidden,) for a single text.

        `settings` are EncodeConfig's: `pooling` of the hidden states of `layer`, how to treat texts that are too
        `long` (more than `max_len` tokens), `precision`, `normalize`. If the folder has modules of
        sentence-transformers, they determine the defaults. Texts are converted to Unicode NFC. Those of similar length
        are computed together, without padding; on a CPU, one batch per core. There a text's vector does not depend on
        the other texts in the call (docs/model.md). Warns if texts were truncated. Raises InputError for an item that
        is not a string, and if bertfast can't compute what the folder's modules do and no `pooling` is given.
        """
        items = [texts] if isinstance(texts, str) else list(texts)
        for index, text in enumerate(items):
            if not isinstance(text, str):
                raise InputError(f"texts[{index}] is {text!r}, not a string: leave it out, or convert it with str()")
        config = EncodeConfig(**self.defaults(settings), **settings)
        vectors, truncated = self.embed_texts(items, config)
        if truncated:
            warnings.warn(f"{truncated} of {len(items)} texts were {self.truncation(config)}", stacklevel=2)
        return vectors[0] if isinstance(texts, str) else vectors

    def defaults(self, given: Container[str]) -> dict[str, Any]:
        """The settings of EncodeConfig from the folder's modules of sentence-transformers, without those in `given`.

        Raises InputError if bertfast can't compute what the modules do, unless the pooling is given.
        """
        if self._modules.refusal and "pooling" not in given:
            raise InputError(
                f"{self._modules.refusal}: to do without the folder's modules, give the pooling (mean, max or cls)"
            )
        return {name: value for name, value in self._modules.settings.items() if name not in given}

    def truncation(self, config: EncodeConfig) -> str:
        """The end of a warning about truncated texts."""
        return f"truncated to {self._most(config)}; 'window' instead encodes them whole"

    def _most(self, config: EncodeConfig) -> str:
        """The maximum length of a text, in words."""
        if 0 < config.max_len < self.max_len:
            return f"{config.max_len} tokens (max_len)"
        return f"the {self.max_len} tokens that the model takes"

    def embed_texts(
        self, texts: Sequence[str], config: EncodeConfig, done: Callable[[int], object] = lambda count: None
    ) -> tuple[Tensor, int]:
        """The vectors of `embed`, and the number of truncated texts.

        `done` is called after each batch with its number of texts.
        """
        layer = config.layer_of(self.model.config)
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            native.keep_freed_memory()
        keep_copies(self.model.layers.parameters(), choose_precision(config, self.device))
        pieces, owners, truncated = self._pieces(texts, config)
        threads, most = (torch.get_num_threads(), _BATCH_TOKENS) if on_cpu else (1, _GPU_BATCH_TOKENS)
        lengths = [len(piece) for piece in pieces]
        batches = _batches(lengths, min(most, 1 + sum(lengths) // threads))
        vectors = torch.empty(len(pieces), self.model.config.hidden_size, dtype=torch.float32, device="cpu")

        def compute(batch: list[int]) -> int:
            vectors[batch] = self._pooled([pieces[i] for i in batch], layer, config).cpu()
            return len(batch)

        left = len(texts)  # a windowed text is several pieces
        with map_on_cores(self.device) as in_turn:
            for count in in_turn(compute, batches):
                done(min(count, left))
                left -= min(count, left)
        if len(pieces) > len(texts):
            vectors = _joined(vectors, owners, lengths, config.pooling)
        if config.normalize:
            vectors = torch.nn.functional.normalize(vectors)
        return vectors, truncated

    def _pieces(self, texts: Sequence[str], config: EncodeConfig) -> tuple[list[list[int]], list[int], int]:
        """Token ids in pieces that fit the model; the index of each piece's text; the number of truncated texts."""
        cls, sep = self.tokenizer.special_ids.cls, self.tokenizer.special_ids.sep
        room = min(config.max_len or self.max_len, self.max_len) - 2
        if config.overlap >= room:
            raise InputError(f"--overlap {config.overlap} leaves no room in {self._most(config)}")
        pieces, owners, truncated = [], [], 0
        encoded = self.tokenizer.encode_sentences([*map(nfc, texts)])
        for number, (text, ids) in enumerate(zip(texts, encoded, strict=True)):
            starts = [0]
            if len(ids) > room:
                if config.long == "error":
                    raise InputError(
                        f"the text '{shorten(text, 60, placeholder=' ...')}' has {len(ids) + 2} tokens, more than "
                        f"{self._most(config)}: cut it into shorter ones, or let it be truncated or windowed"
                    )
                if config.long == "window":
                    starts = list(range(0, len(ids) - config.overlap, room - config.overlap))
                else:
                    truncated += 1
            pieces += [[cls, *ids[start : start + room], sep] for start in starts]
            owners += [number] * len(starts)
        return pieces, owners, truncated

    @torch.inference_mode()
    def _pooled(self, pieces: list[list[int]], layer: int, config: EncodeConfig) -> Tensor:
        """(pieces, hidden): the pooled hidden states of each piece."""
        dtype = choose_precision(config, self.device)
        tokens = sum(map(len, pieces))
        by_first_token = config.pooling == "cls" and layer > 0
        # A final sequence of padding rounds the rows up to a multiple. With [CLS] it pads the pooled rows, too.
        padding = -tokens % _ROWS or _ROWS
        if by_first_token:
            padding += _ROWS
        sequences = _packed([*pieces, [self.tokenizer.special_ids.pad] * padding], self.device)
        sequences.position_ids.clamp_(max=self.max_len - 1)
        if by_first_token:
            spare = -(len(pieces) + 1) % _ROWS
            last = torch.arange(tokens + padding - spare, tokens + padding, device=self.device)
            rows = head_rows(sequences.cu_seqlens, last)
            states = self.model.hidden_states(sequences, dtype, layer=layer, rows=rows)
            return states[rows.first[:-1]].float()
        states = self.model.hidden_states(sequences, dtype, layer=layer)
        return pooled_vectors(states, sequences, config.pooling)[:-1]

    def _encode(self, text: str, pair: str | None) -> Encoding:
        """The tokens of a text or a pair. Raises InputError if the model doesn't take them."""
        if pair is not None and self.model.config.type_vocab_size < 2:
            raise InputError("the model has one token type, a pair of texts needs two: give one text")
        encoding = self.tokenizer.encode(text, pair)
        if len(encoding.ids) > self.max_len:
            raise InputError(
                f"the text has {len(encoding.ids)} tokens, the model takes {self.max_len}: cut it into shorter ones"
            )
        return encoding


def _packed(pieces: list[list[int]], device: torch.device, types: list[int] | None = None) -> PackedBatch:
    """A batch of the pieces, without masks."""
    lengths = np.array([len(piece) for piece in pieces])
    ends = np.concatenate([[0], np.cumsum(lengths)])
    total = int(ends[-1])
    zeros = torch.zeros(total, dtype=torch.int64, device=device)

    def tensor(values: Any) -> Tensor:
        return torch.from_numpy(values).to(device)

    nothing = zeros[:0]
    return PackedBatch(
        input_ids=tensor(np.fromiter(itertools.chain.from_iterable(pieces), np.int64, total)),
        token_type_ids=zeros if types is None else tensor(np.array(types, np.int64)),
        position_ids=tensor(np.arange(total) - np.repeat(ends[:-1], lengths)),
        cu_seqlens=tensor(ends.astype(np.int32)),
        masked_positions=nothing,
        cu_masked=torch.zeros(len(ends), dtype=torch.int32, device=device),
        labels=nothing,
        next_sentence_label=nothing,
        row_keys=zeros,
        max_seqlen=int(lengths.max()),
    )


def _batches(lengths: list[int], most: int) -> list[list[int]]:
    """Indices sorted by length, longest first, in batches of at most `most` tokens, or of one text."""
    batches: list[list[int]] = []
    tokens = most
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if tokens + lengths[i] > most:
            batches.append([])
            tokens = 0
        batches[-1].append(i)
        tokens += lengths[i]
    return batches


def _joined(vectors: Tensor, owners: list[int], lengths: list[int], pooling: str) -> Tensor:
    """Each text's vector from those of its windows: their maximum, or their mean, weighted by numbers of tokens."""
    counts = torch.bincount(torch.tensor(owners, device="cpu"))
    if pooling == "max":
        joined: Tensor = torch.segment_reduce(vectors, "max", lengths=counts, unsafe=True)
        return joined
    weights = torch.tensor(lengths, dtype=torch.float32, device="cpu").unsqueeze(1)
    sums = torch.segment_reduce(vectors * weights, "sum", lengths=counts, unsafe=True)
    total = torch.segment_reduce(weights, "sum", lengths=counts, unsafe=True)
    windowed = (counts > 1).unsqueeze(1)
    first = torch.cumsum(counts, 0) - counts
    return torch.where(windowed, sums / total, vectors[first])
