"""Sampling, masking and batching sentence pairs: pairs per second of ours, the notebook's and transformers'."""

from __future__ import annotations

import itertools

import pytest
import torch
from sizes import sized
from support.notebook import import_d2l, notebook_dataset, notebook_paragraphs, wikitext_folder
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from bertfast.config import SamplerConfig
from bertfast.data.load import load_corpus
from bertfast.sampling.sampler import Sampler

BATCH, MAX_LEN = 512, 64
BATCHES = sized(16, smoke=2)  # per call


def corpus():
    return load_corpus(wikitext_folder(), tokenizer="word")


def our_batches(make):
    """One call makes BATCHES batches of new examples."""
    numbers = itertools.count()

    def call():
        for _ in range(BATCHES):
            make(next(numbers) * BATCH, BATCH)

    return call


def notebook_preparation():
    """The notebook's pairs, masks and padding for some paragraphs, tokenised beforehand; and the number of pairs."""
    d2l = import_d2l()
    vocab = notebook_dataset(MAX_LEN).vocab
    paragraphs = [d2l.tokenize(paragraph, token="word") for paragraph in notebook_paragraphs()]
    part = paragraphs[: sized(500, smoke=10)]

    def call():
        pairs = [
            pair
            for paragraph in part
            for pair in d2l._get_nsp_data_from_paragraph(paragraph, paragraphs, vocab, MAX_LEN)
        ]
        examples = [
            (*d2l._get_mlm_data_from_tokens(tokens, vocab), segments, is_next) for tokens, segments, is_next in pairs
        ]
        d2l._pad_bert_inputs(examples, MAX_LEN, vocab)
        return len(examples)

    return call, call()


def transformers_collation():
    """transformers' masking and padding of pairs made beforehand, since it has no next-sentence data."""
    text = corpus()
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    words = {f"[{name.upper()}]": id for name, id in text.special_ids._asdict().items()}
    words.update({f"word{id}": id for id in range(text.vocab_size) if id not in words.values()})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="[UNK]")), **special)
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    batch = Sampler(text, SamplerConfig(max_len=MAX_LEN, mask_share=0, random_share=0)).packed(0, BATCH)
    features = []
    for begin, end in itertools.pairwise(batch.cu_seqlens.tolist()):
        ids = batch.input_ids[begin:end].tolist()
        features.append(
            {
                "input_ids": ids,
                "token_type_ids": batch.token_type_ids[begin:end].tolist(),
                "special_tokens_mask": [int(id in (text.special_ids.cls, text.special_ids.sep)) for id in ids],
            }
        )
    return lambda: collate(features)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("form", ["packed", "padded"])
def test_sampler(compare, form, one_thread):
    notebook, notebook_pairs = notebook_preparation()
    compare(
        f"pairs sampled and masked, WikiText-2, max_len {MAX_LEN}, batch {BATCH}, {form}, 1 thread",
        our_batches(getattr(Sampler(corpus(), SamplerConfig(max_len=MAX_LEN)), form)),
        {"notebook (d2l)": notebook, "transformers' collator, masks only": transformers_collation()},
        items={
            "ours": BATCH * BATCHES,
            "notebook (d2l)": notebook_pairs,
            "transformers' collator, masks only": BATCH,
        },
        unit="pairs",
    )


@pytest.mark.skipif(torch.get_num_threads() < 2, reason="needs 2 cores")
def test_two_threads(compare, one_thread):
    batches = our_batches(Sampler(corpus(), SamplerConfig(max_len=MAX_LEN)).packed)

    def with_threads(number):
        def call():
            torch.set_num_threads(number)
            batches()

        return call

    compare(
        "the same, packed, on 2 threads (2.00x would be twice the rate)",
        with_threads(2),
        {"1 thread": with_threads(1)},
        items=BATCH * BATCHES,
        unit="pairs",
        rounds=41,
    )


VARIANTS = {
    "whole words": {"masking": "whole_word"},
    "spans": {"masking": "span"},
    "the notebook's way": {"negatives": "any", "too_long": "drop"},
    "filled to 128": {"segments": "fill", "max_len": 128},
    "filled to 512": {"segments": "fill", "max_len": 512},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(compare, variant, one_thread):
    """Other settings compared with the default, packed, on one core."""
    text = corpus()
    default, other = (
        our_batches(Sampler(text, SamplerConfig(**settings)).packed) for settings in ({}, VARIANTS[variant])
    )
    compare(f"{variant}, packed, 1 thread", other, {"default": default}, items=BATCH * BATCHES, unit="pairs")
