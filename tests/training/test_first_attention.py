"""Where the first layer looks before the first step, as transformers computes it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from support.small_run import ALONE, make_corpus

from bertfast.config import BertConfig, TrainConfig
from bertfast.hub.transformers import save_model
from bertfast.model import Bert
from bertfast.training.first_attention import attend_to_neighbours
from bertfast.training.setup import prepare

SIZES = {"vocab_size": 1000, "hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}


def model_with(seed: int = 0, **changes: Any) -> Bert:
    torch.manual_seed(0)
    model = Bert(BertConfig(**{**SIZES, **changes}))
    attend_to_neighbours(model, seed)
    return model


def first_attentions(model: Bert, folder: Any, tokens: int) -> torch.Tensor:
    """(heads, tokens, tokens): the mean over several texts of random tokens."""
    save_model(model, folder)
    theirs = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    torch.manual_seed(1)
    with torch.no_grad():
        found = theirs(torch.randint(5, 1000, (8, tokens)), output_attentions=True)
    return found.attentions[0].mean(0)


@pytest.mark.parametrize("tokens", [20, 512])
def test_each_head_attends_to_its_neighbour(tmp_path: Any, tokens: int) -> None:
    attentions = first_attentions(model_with(), tmp_path, tokens)
    for head, distance in enumerate([-1, 1, -2, 2]):
        own = attentions[head].diagonal(distance)
        elsewhere = [attentions[head].diagonal(other).mean() for other in range(-8, 9) if other != distance]
        assert own.mean() > 5 * max(elsewhere), f"head {head}"


def test_a_random_start_attends_nowhere_in_particular(tmp_path: Any) -> None:
    torch.manual_seed(0)
    attentions = first_attentions(Bert(BertConfig(**SIZES)), tmp_path, 20)
    assert attentions.max() < 0.1


def test_only_the_first_attention_and_the_positions_change() -> None:
    torch.manual_seed(0)
    random, ours = Bert(BertConfig(**SIZES)), model_with()
    changed = {
        name
        for (name, one), other in zip(ours.named_parameters(), random.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert changed == {
        "embeddings.position.weight",
        "layers.0.query.weight",
        "layers.0.key_value.weight",
        "layers.0.attention_output.weight",
    }


def test_positions_are_as_large_as_words() -> None:
    table = model_with().embeddings.position.weight
    torch.testing.assert_close(table.norm(dim=1), torch.full((512,), 0.02 * 256**0.5))
    gram = (table @ table.T) / (0.02**2 * 256)
    assert (gram - torch.eye(512)).abs().max() < 0.7, "no two positions are alike"


@pytest.mark.parametrize("sizes", [(33, 1), (36, 12), (2, 2)])
def test_odd_sizes(sizes: tuple[int, int]) -> None:
    hidden, heads = sizes
    model = model_with(hidden_size=hidden, num_attention_heads=heads)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_it_is_drawn_from_its_seed_alone() -> None:
    before = torch.random.get_rng_state()
    torch.manual_seed(5)
    one = model_with(seed=3)
    torch.rand(7)
    other = model_with(seed=3)
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    assert not torch.equal(one.layers[0].attention_output.weight, model_with(4).layers[0].attention_output.weight)
    torch.random.set_rng_state(before)


@pytest.mark.parametrize("trained_len", [0, 64])
def test_a_run_starts_only_new_models_so(tmp_path: Any, trained_len: int) -> None:
    corpus = make_corpus(tmp_path)
    config = TrainConfig(first_attention="neighbours", seed=3, max_len=32)
    model = Bert(BertConfig(**{**SIZES, "vocab_size": corpus.vocab_size}))
    model.trained_len = trained_len
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for given in (dataclasses.replace(config, first_attention="random"), config):
        prepare(model, corpus, given, ALONE)
        same = torch.equal(model.layers[0].query.weight, before["layers.0.query.weight"])
        assert same == (given.first_attention == "random" or trained_len > 0)
