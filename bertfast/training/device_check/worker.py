"""A process that runs checks and writes each result to standard output, as a line of JSON.

It exits after the first failure: damage to memory or to the CUDA context must not affect the next check.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import torch

from bertfast import ops
from bertfast.training.device_check import ops as op_checks
from bertfast.training.device_check.differences import Difference
from bertfast.training.device_check.job import ALL_REDUCE, REPLAY, SAMPLER, Job
from bertfast.training.device_check.steps import check_all_reduce, check_replay, check_sampler

Check = Callable[[], Iterator[Difference]]


def checks(job: Job) -> dict[str, Check]:
    """All checks, by name."""
    device = torch.device(job.device)
    return {
        SAMPLER: functools.partial(check_sampler, device),
        **{name: functools.partial(op_checks.check, name, device) for name in op_checks.CHECKS},
        REPLAY: functools.partial(check_replay, device),
        ALL_REDUCE: functools.partial(check_all_reduce, device, job.devices),
    }


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # any other output goes to standard error
        device = torch.device(job.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        torch.zeros(1, device=device)
        _send(out, ready=True)
        all_checks = checks(job)
        for name in job.checks:
            result = _run_check(all_checks[name], job)
            _send(out, check=name, **result)
            if result["status"] != "passed":
                return


def _run_check(check: Check, job: Job) -> dict[str, Any]:
    """Runs a check: its status (passed, failed, or not checked for lack of memory), a message, and its seconds."""
    started = time.perf_counter()
    try:
        with ops.use_twins(job.twins):
            differences = list(check())
        status, message = _summarize(differences)
    except torch.OutOfMemoryError as error:
        status, message = "not checked", _first_line(error)
    except Exception as error:
        status, message = "failed", f"{type(error).__name__}: {_first_line(error)}"
    return {"status": status, "said": message, "seconds": time.perf_counter() - started}


def _summarize(differences: list[Difference]) -> tuple[str, str]:
    wrong = [each for each in differences if not each.is_small]
    if wrong:
        more = f" (and {len(wrong) - 1} more of {len(differences)})" if len(wrong) > 1 else ""
        return "failed", f"{wrong[0]}{more}"
    if not differences:
        return "passed", "not on this device"
    return "passed", f"{len(differences)} compared, at most {max(each.found for each in differences):.1e} off"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _send(out: TextIO, **message: Any) -> None:
    print(json.dumps(message), file=out, flush=True)


if __name__ == "__main__":
    main()
