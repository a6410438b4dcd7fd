"""What `import bertfast` offers."""

from __future__ import annotations

import importlib

from support.small_run import CONFIG, make_model

import bertfast


def test_the_package_offers_its_contract(corpus):
    for name in ("load_corpus", "Bert", "BertConfig", "TrainConfig", "Encoder", "pretrain"):
        assert callable(getattr(bertfast, name))
    importlib.import_module("bertfast.pretrain")  # now `bertfast.pretrain` is the module: it must still be callable
    assert bertfast.train(make_model(corpus), corpus, CONFIG).history.records
