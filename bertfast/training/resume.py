"""Resuming a run from its newest checkpoint, exactly or not; a run that has ended becomes a longer one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from bertfast.config import TrainConfig, flag
from bertfast.distributed.differences import differences
from bertfast.errors import InputError
from bertfast.model import Bert
from bertfast.reporting.run_info import RunInfo
from bertfast.training import checkpoint
from bertfast.training.checkpoint import Checkpoint
from bertfast.training.optimizer import Optimizer
from bertfast.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def newest_checkpoint(directory: RunDirectory) -> Checkpoint | None:
    """The checkpoint that a run in this directory resumes from; None if it is not resumed, or has none."""
    if directory.path is None or not directory.resumed:
        return None
    return checkpoint.newest(directory.path / "checkpoints")


def has_ended(newest: Checkpoint, info: RunInfo | None) -> bool:
    """Whether the run with this newest checkpoint, and this run.json, had no more steps to take."""
    steps = newest.run.get(flag(TrainConfig, "steps"))
    if steps is None and info is not None and info.settled:
        steps = info.train.steps
    return steps is not None and newest.step >= steps


def extended(ended: Checkpoint, now: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint of a run that has ended, as one of the longer run with the fingerprint `now`."""
    length = {flag(TrainConfig, name) for name in ("steps", "minutes")}
    kept = {name: value for name, value in ended.run.items() if name not in length}
    return ended._replace(run={**kept, **{name: now[name] for name in length & now.keys()}})


def resume(newest: Checkpoint, model: Bert, optimizer: Optimizer, now: Mapping[str, Any], config: TrainConfig) -> int:
    """Restores the checkpoint in a run with the fingerprint `now`. Returns the number of completed steps.

    Raises InputError if the run can't resume from it, or only inexactly without `config.inexact`.
    """
    changes = "".join(f"\n  {difference}" for difference in differences(newest.run, now))
    if misfit := checkpoint.misfit(newest, model, optimizer):
        raise InputError(
            f"{newest.path} is a checkpoint of another model or optimizer ({misfit}): give the options of the run that "
            f"wrote it, or another --out. What differs:{changes}"
        )
    if newest.step > config.steps and config.inexact:
        raise InputError(f"{newest.path} is past the end of a run of {config.steps} steps: give more --steps")
    if changes and not config.inexact:
        raise InputError(
            f"{newest.path} cannot be resumed exactly: give the options of the run that wrote it, another --out, or "
            f"--inexact to resume all the same. What differs:{changes}"
        )
    if changes:
        logger.warning(
            "the result will differ from that of the run that wrote %s. What differs:%s", newest.path, changes
        )
    checkpoint.restore(newest, model, optimizer)
    done = ", which is the end: nothing is left to do" if newest.step >= config.steps else ""
    logger.info("resuming from %s, step %s%s", newest.path, newest.step, done)
    return newest.step
