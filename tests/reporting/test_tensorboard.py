"""The writer of event files, and its package. test_metrics.py has what a run writes."""

from __future__ import annotations

import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bertfast.errors import InputError
from bertfast.reporting.tensorboard import event_writer, require_tensorboard


def test_what_an_earlier_run_wrote_of_later_steps_is_not_shown(tmp_path):
    """A run wrote steps 0 to 5, and was resumed at step 3."""
    for first, last in ((0, 6), (3, 5)):
        with event_writer(tmp_path, first) as writer:
            for step in range(first, last):
                writer.add_scalar("loss", 10 * first + step, step)
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(each.step, each.value) for each in shown] == [(0, 0), (1, 1), (2, 2), (3, 33), (4, 34)]


def test_the_package_is_asked_for_in_one_line(monkeypatch):
    require_tensorboard()
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"^--tensorboard needs .*: pip install tensorboard, or leave it out$"):
        require_tensorboard()
