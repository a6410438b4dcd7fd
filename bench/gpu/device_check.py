"""`python -m bertfast.check`, with its verdict as the stage's result."""

from __future__ import annotations

import signal
import sys

from stage import arguments, require, save

from bertfast.config import TrainConfig
from bertfast.distributed.devices import choose_devices
from bertfast.training.device_check.report import machine, table
from bertfast.training.device_check.verdict import Verdict, examine, store

SECONDS = 20.0  # for a check: one that hangs must not take the whole stage


def main() -> None:
    options = arguments()
    require(options.device)
    devices = choose_devices(TrainConfig(device=options.device))
    print(table(machine(devices).items()), flush=True)
    outcomes = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # at the stage's end: so the check's own process ends, too
    for outcome in examine(devices[0], len(devices), seconds=SECONDS):
        outcomes.append(outcome)
        verdict = Verdict(tuple(outcomes))
        print(table(verdict.rows()[-1:]), flush=True)
        save(verdict.as_json())
    store(verdict, devices[0], len(devices))
    if not verdict.is_good:
        raise SystemExit(f"failed: {', '.join(verdict.failures) or 'not all was checked'}")


if __name__ == "__main__":
    main()
