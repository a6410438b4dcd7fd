"""What `import bertfast` offers."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_run import CONFIG, make_model

import bertfast


def test_the_package_offers_its_contract(corpus):
    for name in ("load_corpus", "Bert", "BertConfig", "TrainConfig", "Encoder", "train"):
        assert callable(getattr(bertfast, name))
    assert bertfast.train(make_model(corpus), corpus, CONFIG).history.records


def test_the_former_name_of_train_warns(monkeypatch):
    """`bertfast.pretrain` was the function, until the command's module of that name was imported."""
    monkeypatch.delitem(vars(bertfast), "pretrain", raising=False)  # another test may have imported the module
    with pytest.warns(DeprecationWarning, match=r"^bertfast.pretrain\(...\) is called bertfast.train\(...\) now$"):
        assert bertfast.pretrain is bertfast.train


def test_the_citation_names_this_version():
    citation = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {bertfast.__version__}\n" in citation
