"""Encoding 2,000 real sentences, beside a transformers loop with padding, the same weights."""

from __future__ import annotations

import pytest
import torch
import transformers
from notebook import notebook_paragraphs

from bertfast.config import BertConfig, CorpusConfig
from bertfast.encoder import Encoder
from bertfast.huggingface import save_model
from bertfast.model import Bert
from bertfast.tokenizer import train_wordpiece

SENTENCES = 2000
BATCH = 32


@pytest.mark.parametrize("layers, hidden", [(2, 128), (4, 256)])
def test_embed(compare, tmp_path, layers, hidden):
    texts = [sentence for paragraph in notebook_paragraphs() for sentence in paragraph][:SENTENCES]
    tokenizer = train_wordpiece(texts, CorpusConfig(vocab_size=8000, min_freq=2))
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": hidden // 64}
    model = Bert(BertConfig(vocab_size=tokenizer.vocab_size, intermediate_size=4 * hidden, **sizes))
    save_model(model, tmp_path)
    tokenizer.save(tmp_path, 512)

    encoder = Encoder.load(tmp_path)
    theirs = transformers.AutoModel.from_pretrained(tmp_path).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)

    @torch.inference_mode()
    def transformers_loop():
        vectors = []
        for first in range(0, SENTENCES, BATCH):
            batch = their_tokenizer(texts[first : first + BATCH], padding=True, truncation=True, return_tensors="pt")
            states = theirs(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            vectors.append((states * mask).sum(1) / mask.sum(1))
        return torch.cat(vectors)

    torch.testing.assert_close(encoder.embed(texts), transformers_loop(), rtol=1e-4, atol=1e-4)
    compare(
        f"Encoder.embed, {SENTENCES} sentences, {layers} layers, hidden {hidden}, fp32",
        lambda: encoder.embed(texts),
        {"transformers, padded batches of 32": transformers_loop},
        items=SENTENCES,
        unit="sentences",
    )
