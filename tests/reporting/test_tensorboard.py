"""The writer of event files. test_metrics.py has what a run writes."""

from __future__ import annotations

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bertfast.reporting.tensorboard import event_writer


def test_what_an_earlier_run_wrote_of_later_steps_is_not_shown(tmp_path):
    """A run wrote steps 0 to 5, and was resumed at step 3."""
    for first, last in ((0, 6), (3, 5)):
        with event_writer(tmp_path, first) as writer:
            for step in range(first, last):
                writer.add_scalar("loss", 10 * first + step, step)
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(each.step, each.value) for each in shown] == [(0, 0), (1, 1), (2, 2), (3, 33), (4, 34)]
