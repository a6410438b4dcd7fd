"""What a model that starts from its text knows before the first step, as transformers computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.array_corpus import make_corpus
from support.torch_threads import torch_threads

from bertfast.config import BertConfig
from bertfast.hub.transformers import save_model
from bertfast.model import Bert
from bertfast.training import text_start
from bertfast.training.text_start import start_from_text

TRIPLES = 20
SIZES = {
    "vocab_size": 5 + 3 * TRIPLES,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def triples(seed: int, number: int) -> torch.Tensor:
    """(number, 3): the tokens of a triple always follow each other."""
    drawn = torch.randint(TRIPLES, (number,), generator=torch.Generator().manual_seed(seed))
    return 5 + 3 * drawn[:, None] + torch.arange(3)


def text(vocab_size: int = SIZES["vocab_size"]) -> Any:
    documents = [[(triples(seed, 40).flatten() % vocab_size).tolist()] for seed in range(200)]
    return make_corpus(documents, vocab_size)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_start, "LEAST_TOKENS", 0)


def model_with(seed: int = 0, **changes: Any) -> Bert:
    torch.manual_seed(0)
    model = Bert(BertConfig(**{**SIZES, **changes}))
    start_from_text(model, text(model.config.vocab_size), seed)
    return model


def first_attentions(model: Bert, folder: Path, tokens: int) -> torch.Tensor:
    """(heads, tokens, tokens): the mean over several texts of random tokens."""
    save_model(model, folder)
    theirs = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    torch.manual_seed(1)
    with torch.no_grad():
        found = theirs(torch.randint(5, SIZES["vocab_size"], (8, tokens)), output_attentions=True)
    return found.attentions[0].mean(0)


@pytest.mark.parametrize("tokens", [20, 512])
@pytest.mark.parametrize("least_tokens", [0, 10**9])
def test_each_head_attends_to_its_neighbour(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tokens: int, least_tokens: int
) -> None:
    monkeypatch.setattr(text_start, "LEAST_TOKENS", least_tokens)
    attentions = first_attentions(model_with(), tmp_path, tokens)
    for head, distance in enumerate([-1, 1, -2, 2]):
        own = attentions[head].diagonal(distance)
        elsewhere = [attentions[head].diagonal(other).mean() for other in range(-8, 9) if other != distance]
        assert own.mean() > 5 * max(elsewhere), f"head {head}"


def test_a_random_start_attends_nowhere_in_particular(tmp_path: Path) -> None:
    torch.manual_seed(0)
    attentions = first_attentions(Bert(BertConfig(**SIZES)), tmp_path, 20)
    assert attentions.max() < 0.1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_masked_token_is_predicted_from_its_neighbours(tmp_path: Path, place: int) -> None:
    """Of the first token of a triple, only the ones after it tell; of the last, only the ones before."""
    tokens = triples(1000, 64 * 5).view(64, 5, 3)
    labels = tokens[:, 2, place].clone()
    tokens[:, 2, place] = 4
    right = {}
    torch.manual_seed(0)
    for name, model in {"random": Bert(BertConfig(**SIZES)), "text": model_with()}.items():
        save_model(model, tmp_path)
        theirs = transformers.BertForMaskedLM.from_pretrained(tmp_path).eval()
        with torch.no_grad():
            logits = theirs(tokens.flatten(1)).logits[:, 6 + place]
        right[name] = (logits.argmax(1) == labels).float().mean()
    assert right["random"] < 0.1
    assert right["text"] > 0.9


ATTENTION = {
    "embeddings.position.weight",
    "layers.0.query.weight",
    "layers.0.key_value.weight",
    "layers.0.attention_output.weight",
}
COUNTED = {"embeddings.word.weight", "masked_lm_head.transform.weight", "masked_lm_head.transform.bias"}


@pytest.mark.parametrize(("least_tokens", "expected"), [(24000, ATTENTION | COUNTED), (24001, ATTENTION)])
def test_only_what_predicts_from_neighbours_changes(
    monkeypatch: pytest.MonkeyPatch, least_tokens: int, expected: set[str]
) -> None:
    """In a short text, counts set nothing."""
    monkeypatch.setattr(text_start, "LEAST_TOKENS", least_tokens)
    torch.manual_seed(0)
    random, ours = Bert(BertConfig(**SIZES)), model_with()
    changed = {
        name
        for (name, one), other in zip(ours.named_parameters(), random.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert changed == expected


@pytest.mark.parametrize(("least_tokens", "std"), [(0, 0.08), (10**9, 0.02)])
def test_positions_are_as_large_as_words(monkeypatch: pytest.MonkeyPatch, least_tokens: int, std: float) -> None:
    monkeypatch.setattr(text_start, "LEAST_TOKENS", least_tokens)
    table = model_with().embeddings.position.weight
    torch.testing.assert_close(table.norm(dim=1), torch.full((512,), std * 256**0.5))
    gram = (table @ table.T) / (std**2 * 256)
    assert (gram - torch.eye(512)).abs().max() < 0.7, "no two positions are alike"


@pytest.mark.parametrize("sizes", [(33, 1), (36, 12), (2, 2)])
@pytest.mark.parametrize("vocab_size", [6, 100])
def test_odd_sizes(sizes: tuple[int, int], vocab_size: int) -> None:
    hidden, heads = sizes
    model = model_with(hidden_size=hidden, num_attention_heads=heads, vocab_size=vocab_size)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_it_depends_on_its_seed_and_not_on_threads_or_the_global_generator() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        with torch_threads(1):
            one = model_with(seed=3)
        torch.rand(7)
        with torch_threads(3):
            other = model_with(seed=3)
            assert torch.get_num_threads() == 3
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    assert not torch.equal(one.layers[0].attention_output.weight, model_with(4).layers[0].attention_output.weight)
