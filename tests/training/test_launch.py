"""Several workers, started from Python."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.small_run import CONFIG, make_model

from bertfast.errors import InputError
from bertfast.training.launch import train


def test_several_workers_from_python(corpus, tmp_path):
    """`gpus=2` starts workers, which train on the part they are given and hand the trained weights back.

    The run that `train` returns saves the same card as its workers. They share the evaluation's batches, one of the
    run's own examples and one of the standard ones, and all figures have one worker's bits.
    """
    part = corpus.documents(10, 50)
    runs, cards = [], []
    for gpus in (1, 2):
        config = dataclasses.replace(CONFIG, eval=True, max_len=64, gpus=gpus, deterministic=True, shards=4)
        folders = tmp_path / f"{gpus}", tmp_path / f"{gpus} again"
        run = train(make_model(corpus), part, config, out=folders[0])
        run.save(folders[1])
        cards += [(folder / "README.md").read_bytes() for folder in folders]
        runs.append(run)
    one, two = runs
    assert len(two.history.records) == CONFIG.steps
    assert two.history.records == one.history.records
    [evaluation] = two.history.evaluations
    assert evaluation.eval_standard_mlm_loss != evaluation.eval_mlm_loss
    assert one.history.evaluations == [evaluation]
    assert cards[1:] == cards[:1] * 3
    assert two.model.max_len == 64
    torch.testing.assert_close(two.model.state_dict(), one.model.state_dict(), rtol=0, atol=0)
    with pytest.raises(InputError, match="--gpus 4096 asks for more CPU workers"):
        train(two.model, corpus, dataclasses.replace(CONFIG, gpus=4096))


def test_a_run_that_is_resumed_has_a_folder(corpus):
    with pytest.raises(InputError, match="resume=True continues a run: name its folder"):
        train(make_model(corpus), corpus, CONFIG, resume=True)
