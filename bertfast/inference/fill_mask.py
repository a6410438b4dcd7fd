"""Predicts the words for a text's [MASK]s, the likeliest first."""

from __future__ import annotations

from typing import NamedTuple

import torch

from bertfast.config import FillMaskConfig
from bertfast.data.normal_form import nfc
from bertfast.data.tokenizing.special_tokens import MASK
from bertfast.errors import InputError
from bertfast.inference.encoder import Encoder


class Candidate(NamedTuple):
    """A token that could fill a mask."""

    probability: float
    token: str
    filled: str
    """The text with the token in place of this mask; a token that continues a word is joined to the previous word."""


def fill_mask(encoder: Encoder, text: str, config: FillMaskConfig | None = None) -> list[list[Candidate]]:
    """For each [MASK] in `text`, the `top_k` likeliest tokens. In a filled text, in Unicode NFC, the other masks stay.

    The model needs its masked-LM head (`load_pretrained(folder, MASKED_LM_HEAD)`). Raises InputError for a text without
    a [MASK], or with more tokens than the model takes.
    """
    tokenizer, model, text = encoder.tokenizer, encoder.model, nfc(text)
    encoding = tokenizer.encode(text)
    ids = torch.tensor(encoding.ids, device="cpu")
    positions = torch.nonzero(ids == tokenizer.special_ids.mask).flatten()
    if not positions.numel():
        raise InputError(f"no {MASK} in {text!r}: write {MASK} where a word is to be found")
    with torch.inference_mode():
        logits = model.masked_lm_logits(encoder(text)[0, positions].to(encoder.device))
    probabilities = logits.cpu().softmax(1)[:, : tokenizer.vocab_size]  # the model's vocabulary can be larger
    best = probabilities.topk(min((config or FillMaskConfig()).top_k, tokenizer.vocab_size))
    continuation = tokenizer.continuation

    def candidate(position: int, probability: float, id: int) -> Candidate:
        [token] = tokenizer.tokens([id])
        begin, end = encoding.offsets[position]
        if continuation[id]:
            filled = text[:begin].rstrip() + token.removeprefix(tokenizer.prefix) + text[end:]
        else:
            filled = text[:begin] + token + text[end:]
        return Candidate(probability, token, nfc(filled))

    rows = zip(positions.tolist(), best.values.tolist(), best.indices.tolist(), strict=True)
    return [[candidate(position, *pair) for pair in zip(values, ids, strict=True)] for position, values, ids in rows]
