"""Which errors are reported as lack of memory. test_trainer.py has the ways out for each kind of run."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.small_run import ALONE, CONFIG, CPU

from bertfast.errors import InputError
from bertfast.training.out_of_memory import explained_out_of_memory


def full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def broken_capture() -> None:
    """Leaving a context after the failure raises another error, twice."""
    try:
        try:
            full()
        finally:
            raise RuntimeError("the capture is invalid")
    finally:
        raise RuntimeError("the stream is still capturing")


@pytest.mark.parametrize("fail", [full, broken_capture])
def test_lack_of_memory_is_one_line(fail):
    with pytest.raises(InputError) as raised, explained_out_of_memory(CONFIG, ALONE):
        fail()
    ways = "lower --batch-size 12, or compute the batch in more pieces (--shards 2)"
    assert str(raised.value) == f"cpu is out of memory: {ways}"
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("changes", "batch_size", "shards"),
    [({"shards": 4}, 8, 8), ({"shards": 4}, 7, None), ({"local": [CPU] * 2}, 8, None)],
)
def test_shards_are_offered_where_they_can_be_halved(changes, batch_size, shards):
    """A shard has at least an example, and a process with several GPUs gives each of them one."""
    config = dataclasses.replace(CONFIG, batch_size=batch_size)
    with pytest.raises(InputError) as raised, explained_out_of_memory(config, ALONE._replace(**changes)):
        full()
    assert ("--shards" in str(raised.value)) == (shards is not None)
    assert shards is None or f"(--shards {shards})" in str(raised.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), InputError("no number"), MemoryError()])
def test_other_errors_come_through_as_they_are(error):
    with pytest.raises(type(error)) as raised, explained_out_of_memory(CONFIG, ALONE):
        raise error
    assert raised.value is error
