"""Which worlds are refused."""

from __future__ import annotations

import dataclasses

import pytest
from support.small_run import CONFIG, CPU

from bertfast.distributed.world import make_world
from bertfast.errors import InputError


def test_replicas_are_not_compiled():
    with pytest.raises(InputError, match="--compile: DataParallel's replicas are not compiled"):
        make_world(dataclasses.replace(CONFIG, compile=True), [CPU] * 2, [CPU] * 2)
