"""`python -m bertfast.check`, with its verdict as the stage's result."""

from __future__ import annotations

from stage import arguments, require, save

from bertfast.config import TrainConfig
from bertfast.distributed.devices import choose_devices
from bertfast.training.device_check.report import machine, table
from bertfast.training.device_check.verdict import Verdict, examine, store


def main() -> None:
    options = arguments()
    require(options.device)
    devices = choose_devices(TrainConfig(device=options.device))
    print(table(machine(devices).items()), flush=True)
    outcomes = []
    for outcome in examine(devices[0], len(devices)):
        outcomes.append(outcome)
        verdict = Verdict(tuple(outcomes))
        print(table(verdict.rows()[-1:]), flush=True)
        save(verdict.as_json())
    store(verdict, devices[0], len(devices))
    if not verdict.is_good:
        raise SystemExit(f"failed: {', '.join(verdict.failures) or 'not all was checked'}")


if __name__ == "__main__":
    main()
