"""`python -m bertfast.check`: whether this machine's GPUs, or its CPU, compute as they should."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from bertfast.command_line import Parser, add_settings, run_command, settings
from bertfast.config import TrainConfig
from bertfast.distributed.devices import choose_devices
from bertfast.training.device_check.report import machine, table
from bertfast.training.device_check.verdict import Verdict, make


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if a check failed, or could not be made."""
    verdicts: list[Verdict] = []
    status = run_command(_parser(), lambda options: verdicts.append(_main(options)), arguments)
    return status or int(not verdicts[0].is_good)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bertfast.check",
        description="Compares every op, forward and backward, with plain torch on the same device, batches with the "
        "host's, and replayed steps with eager ones. Later runs act on the result.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    add_settings(parser, TrainConfig, "what to check", ("device", "gpus"))
    return parser


def _main(options: argparse.Namespace) -> Verdict:
    devices = choose_devices(settings(TrainConfig, options))
    facts = machine(devices)
    if not options.json:
        print(table(facts.items()), flush=True)
    verdict = make(devices[0], len(devices))
    if options.json:
        print(json.dumps({"machine": facts, **verdict.as_json()}, indent=2))
    else:
        print(f"\n{table(verdict.rows())}")
    return verdict


if __name__ == "__main__":
    sys.exit(main())
