"""Several workers, started from Python."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.utils.deterministic
from support.small_run import CONFIG, make_model

from bertfast.errors import InputError
from bertfast.training.launch import train


def test_several_workers_from_python(corpus):
    """`gpus=2` starts the workers, which train on the part they are given and hand the trained weights back."""
    part = corpus.documents(10, 25)
    one, two = make_model(corpus), make_model(corpus)
    alone = train(one, part, CONFIG)
    run = train(two, part, dataclasses.replace(CONFIG, gpus=2))
    assert len(run.history.records) == CONFIG.steps
    for ours, theirs in zip(run.history.records, alone.history.records, strict=True):
        assert ours.mlm_loss == pytest.approx(theirs.mlm_loss, rel=1e-5)
    assert run.model.max_len == CONFIG.max_len
    for name, parameter in run.model.named_parameters():
        torch.testing.assert_close(parameter, dict(one.named_parameters())[name], rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="--gpus 4096 asks for more CPU workers"):
        train(two, corpus, dataclasses.replace(CONFIG, gpus=4096))


def test_a_run_that_is_resumed_has_a_folder(corpus):
    with pytest.raises(InputError, match="resume=True continues a run: name its folder"):
        train(make_model(corpus), corpus, CONFIG, resume=True)
