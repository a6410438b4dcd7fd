"""Predicts the words for a text's [MASK]s, the likeliest first."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

import torch

from bertfast.config import FillMaskConfig
from bertfast.data.tokenizer import MASK
from bertfast.errors import InputError
from bertfast.inference.encoder import Encoder


class Candidate(NamedTuple):
    """A token that could stand in a mask's place."""

    probability: float
    token: str
    filled: str
    """The text with the token in this mask's place; a token that continues a word is joined to the word before."""


def fill_mask(encoder: Encoder, text: str, config: FillMaskConfig | None = None) -> list[list[Candidate]]:
    """For each [MASK] in `text`, the `top_k` likeliest tokens; the other masks stay.

    The model needs its masked-LM head (`load_pretrained(folder, MASKED_LM_HEAD)`). Raises InputError for a text without
    a [MASK], or with more tokens than the model takes.
    """
    tokenizer, model = encoder.tokenizer, encoder.model
    ids = torch.tensor(tokenizer.encode(text)[0], device="cpu")
    places = torch.nonzero(ids == tokenizer.special_ids.mask).flatten()
    if not places.numel():
        raise InputError(f"no {MASK} in {text!r}: write {MASK} where a word is to be found")
    with torch.inference_mode():
        logits = model.masked_lm_logits(encoder(text)[0, places].to(encoder.device))
    probabilities = logits.cpu().softmax(1)[:, : tokenizer.vocab_size]  # the model's vocabulary can be larger
    best = probabilities.topk(min((config or FillMaskConfig()).top_k, tokenizer.vocab_size))
    offsets, continuation = encoder.offsets(text), tokenizer.continuation

    def candidate(place: int, probability: float, id: int) -> Candidate:
        [token] = tokenizer.tokens([id])
        begin, end = offsets[place]
        if continuation[id]:
            filled = text[:begin].rstrip() + token.removeprefix("##") + text[end:]
        else:
            filled = text[:begin] + token + text[end:]
        return Candidate(probability, token, unicodedata.normalize("NFC", filled))

    rows = zip(places.tolist(), best.values.tolist(), best.indices.tolist(), strict=True)
    return [[candidate(place, *each) for each in zip(values, found, strict=True)] for place, values, found in rows]
