"""Encodings: text in, hidden states out. `Encoder` for programs, `python -m bertfast.encode` for the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bertfast.command_line import Parser, run_command
from bertfast.errors import InputError
from bertfast.huggingface import load_pretrained
from bertfast.model import Bert, Sequences
from bertfast.tokenizer import Tokenizer

_POOLINGS = ("mean", "cls")
_BATCH_TOKENS = 8192  # of a batch of `embed`: enough to fill the products, small beside the weights


class Encoder:
    """A pretrained model and its tokenizer.

    >>> encoder = Encoder.load("runs/wiki")
    >>> encoder("a crane is flying").shape                       # [CLS] a crane is flying [SEP]
    torch.Size([1, 6, 128])
    >>> encoder("a crane driver came", "he just left").shape
    torch.Size([1, 10, 128])
    """

    def __init__(self, model: Bert, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Encoder:
        """From a folder that `bertfast.pretrain` or transformers saved. Raises InputError where it holds no model."""
        pretrained = load_pretrained(folder)
        return cls(pretrained.model.to(device), pretrained.tokenizer)

    def __call__(self, text: str, pair: str | None = None) -> Tensor:
        """Last hidden states of `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`: (1, tokens, hidden)."""
        return self._hidden_states([self._ids(text, pair)])[0].unsqueeze(0)

    def tokens(self, text: str, pair: str | None = None) -> list[str]:
        """The tokens whose hidden states `__call__` gives."""
        return self.tokenizer.tokens(self._ids(text, pair)[0])

    def embed(self, texts: Sequence[str], pooling: str = "mean") -> Tensor:
        """A vector for each text, in the order given: (len(texts), hidden).

        `pooling`: the mean of the text's hidden states (`[CLS]` and `[SEP]` included, as sentence-transformers has it),
        or the one of `[CLS]`. Texts of like length are computed together, without padding.
        """
        if pooling not in _POOLINGS:
            raise InputError(f"pooling must be one of {', '.join(_POOLINGS)}, not {pooling!r}")
        encodings = [self._ids(text, None) for text in texts]
        vectors = torch.empty(len(texts), self.model.config.hidden_size)
        for batch in _batches([len(ids) for ids, _ in encodings]):
            states = self._hidden_states([encodings[i] for i in batch])
            for i, state in zip(batch, states, strict=True):
                vectors[i] = state.mean(0) if pooling == "mean" else state[0]
        return vectors

    def _ids(self, text: str, pair: str | None) -> tuple[list[int], list[int]]:
        """Token ids and token types. Raises InputError where they are more than the model takes."""
        ids, types = self.tokenizer.encode(text, pair)
        most = self.model.config.max_position_embeddings
        if len(ids) > most:
            raise InputError(f"the text has {len(ids)} tokens, the model takes {most}: cut it into shorter ones")
        return ids, types

    @torch.inference_mode()
    def _hidden_states(self, encodings: list[tuple[list[int], list[int]]]) -> list[Tensor]:
        """The last layer's hidden states of each, (tokens, hidden), float32 on the CPU."""
        device = next(self.model.parameters()).device
        lengths = [len(ids) for ids, _ in encodings]

        def packed(values: list[list[int]]) -> Tensor:
            return torch.from_numpy(np.concatenate(values).astype(np.int64)).to(device)

        sequences = Sequences(
            input_ids=packed([ids for ids, _ in encodings]),
            token_type_ids=packed([types for _, types in encodings]),
            position_ids=packed([list(range(length)) for length in lengths]),
            cu_seqlens=torch.from_numpy(np.cumsum([0, *lengths]).astype(np.int32)).to(device),
            max_seqlen=max(lengths),
            row_keys=packed([[0] * length for length in lengths]),
        )
        return list(self.model.hidden_states(sequences, torch.float32)[-1].cpu().split(lengths))


def _batches(lengths: list[int]) -> list[list[int]]:
    """Indices in order of length, cut so that a batch holds about `_BATCH_TOKENS` tokens."""
    batches: list[list[int]] = []
    tokens = _BATCH_TOKENS
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if tokens + lengths[i] > _BATCH_TOKENS:
            batches.append([])
            tokens = 0
        batches[-1].append(i)
        tokens += lengths[i]
    return batches


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(_main, arguments)


def _main(arguments: Sequence[str] | None) -> None:
    parser = Parser(
        prog="python -m bertfast.encode", description="Prints the encoding of a text, or of a pair of texts."
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="a folder that bertfast.pretrain wrote")
    parser.add_argument("text")
    parser.add_argument("pair", nargs="?", help="a second text, encoded together with the first")
    options = parser.parse_args(arguments)
    encoder = Encoder.load(options.model)
    encoded = encoder(options.text, options.pair)
    tokens = encoder.tokens(options.text, options.pair)
    print(f"encoded text {tuple(encoded.shape)}, [CLS] {tuple(encoded[:, 0].shape)}")
    width = max(map(len, tokens))
    for token, state in zip(tokens, encoded[0], strict=True):
        numbers = " ".join(f"{value:8.4f}" for value in state[:6].tolist())
        print(f"{token:{width}} {numbers} ...")


if __name__ == "__main__":
    raise SystemExit(main())
