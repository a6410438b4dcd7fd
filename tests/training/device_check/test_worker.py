"""The worker's checks, and how it sums up their results. test_device_check.py starts it as a process."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest
import torch
from support.faulty_worker import SIZE, wrong
from support.small_run import CPU
from torch import Tensor

from bertfast import ops
from bertfast.ops.gelu import bias_gelu
from bertfast.training.device_check import ops as op_checks
from bertfast.training.device_check.differences import Difference
from bertfast.training.device_check.job import Job
from bertfast.training.device_check.verdict import checks_of
from bertfast.training.device_check.worker import _run_check, checks

JOB = Job("cpu", ["adam", "replayed step"], ["bias_gelu"], 2)


def test_a_job_travels_as_json():
    assert Job(**json.loads(json.dumps(JOB._asdict()))) == JOB


def test_the_worker_knows_every_check_that_it_may_be_asked_for():
    assert set(checks(JOB)) == set(checks_of(torch.device("cuda", 0), 2)) > set(checks_of(CPU, 1))


SMALL, LARGE, LARGER = (Difference(f"result {found:g}", found, 1e-3) for found in (5e-4, 0.25, float("nan")))


@pytest.mark.parametrize(
    ("differences", "status", "said"),
    [
        ([SMALL, SMALL._replace(found=2e-4)], "passed", "2 compared, at most 5.0e-04 off"),
        ([], "passed", "not on this device"),
        ([SMALL, LARGE], "failed", "result 0.25: off by 2.5e-01, 1e-03 is allowed"),
        (
            [LARGE, SMALL, LARGER, LARGE],
            "failed",
            "result 0.25: off by 2.5e-01, 1e-03 is allowed (and 2 more of 4)",
        ),
        ([LARGER], "failed", "result nan: off by nan, 1e-03 is allowed"),
        ([SMALL, torch.OutOfMemoryError("no memory\nis left")], "not checked", "no memory"),
        ([SMALL, RuntimeError("\nan illegal access\nand much more")], "failed", "RuntimeError: an illegal access"),
        ([ValueError()], "failed", "ValueError: "),
    ],
)
def test_a_result_is_one_line(differences, status, said):
    def check() -> Iterator[Difference]:
        for each in differences:
            if isinstance(each, Exception):
                raise each
            yield each

    found = _run_check(check, JOB)
    assert (found["status"], found["said"]) == (status, said)
    assert json.loads(json.dumps(found)) == found


CALLS = itertools.count()


def nan(x: Tensor, bias: Tensor) -> Tensor:
    right = bias_gelu(x, bias)
    return right * float("nan") if ops.has_kernels(CPU, "bias_gelu") else right


def changing(x: Tensor, bias: Tensor) -> Tensor:
    """Within the tolerance, and other bits in each call."""
    right = bias_gelu(x, bias)
    return right * (1 + 1e-5 * next(CALLS)) if ops.has_kernels(CPU, "bias_gelu") else right


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        (bias_gelu, "passed", "compared"),
        (wrong, "failed", ": off by"),
        (nan, "failed", "off by inf"),
        (changing, "failed", "computed twice"),
    ],
)
def test_a_fault_of_an_op_is_found(monkeypatch, fault, status, said):
    monkeypatch.setattr(op_checks, "bias_gelu", fault)
    monkeypatch.setattr(op_checks, "sizes", lambda device: [SIZE])
    job = Job("cpu", ["bias_gelu"], [], 1)
    found = _run_check(checks(job)["bias_gelu"], job)
    assert found["status"] == status
    assert said in found["said"]
    assert "\n" not in found["said"]


def test_ops_that_have_failed_are_computed_by_their_twins_meanwhile():
    found = {}

    def check() -> Iterator[Difference]:
        found.update({name: ops.has_kernels(CPU, name) for name in ops.PARTS})
        yield SMALL

    _run_check(check, JOB)
    assert [name for name, has in found.items() if not has] == ["bias_gelu", "feed_forward"]
    assert all(ops.has_kernels(CPU, name) for name in ops.PARTS)
