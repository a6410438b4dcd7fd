"""A run's metrics: metrics.jsonl, event files and figures."""

import json
import math

import numpy as np
import pytest
from support.full_disk import full_disk

from bertfast.reporting.metrics import Evaluation, History, Record
from bertfast.reporting.plot import _smoothed, draw_losses

RECORDS = [Record(step, 6.5 - step / 10, 0.7, 1e-3, 1.5 + step, 100 + step, 0.5) for step in range(6)]
EVALUATIONS = [Evaluation(2, 6.4, math.exp(6.4), 0.1, 0.69, 0.5, 64, 6.3), Evaluation(5, 6.1, math.exp(6.1), 0.2)]


def write(path, first_step, last_step, **options):
    history = History(path, first_step, **options)
    for record in RECORDS[first_step:last_step]:
        history.add(record)
        for evaluation in EVALUATIONS:
            if evaluation.step == record.step:
                history.add(evaluation)
    history.close()
    return history


def test_a_resumed_history_equals_an_uninterrupted_one(tmp_path):
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    write(whole, 0, 6)
    write(parts, 0, 4)
    with parts.open("a") as file:
        file.write('{"step": 4, "mlm_l')  # a line cut short by a crash
    resumed = write(parts, 3, 6)
    resumed.complete()
    assert parts.read_bytes() == whole.read_bytes()
    assert resumed.records == RECORDS
    assert resumed.evaluations == EVALUATIONS
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    assert lines[3]["eval_nsp_accuracy"] == 0.5
    assert "eval_nsp_accuracy" not in lines[-1]


def test_lines_that_the_disk_refused_are_written_later(tmp_path, said):
    """There is one warning and no partial line."""
    path = tmp_path / "metrics.jsonl"
    whole = write(tmp_path / "whole.jsonl", 0, 6)
    history = History(path)
    history.add(RECORDS[0])
    line = path.stat().st_size
    with full_disk(line + line // 2):
        for record in RECORDS[1:3]:
            history.add(record)
        with pytest.raises(OSError, match="File too large"):
            history.write()
    assert said == [f"warning: {path} can't be written: File too large; the lines are kept and written later"]
    assert len(path.read_bytes()) == line
    history.add(EVALUATIONS[0])
    for entry in [*RECORDS[3:], EVALUATIONS[1]]:
        history.add(entry)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert history.records == whole.records


def test_lines_of_an_older_version_are_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "mlm_loss": 6.5, "nsp_loss": 0.7, "lr": 0.001}\n')
    history = History(path, 1)
    assert history.records == [Record(0, 6.5, 0.7, 1e-3, gradient_norm=None, tokens=None, kept_loss=None)]
    history.add(RECORDS[1])
    assert [set(json.loads(line)) for line in path.read_text().splitlines()] == [
        {"step", "mlm_loss", "nsp_loss", "lr"},
        {"step", "mlm_loss", "nsp_loss", "lr", "gradient_norm", "tokens", "kept_loss"},
    ]


def test_missing_lines_are_reported(tmp_path, said):
    path = tmp_path / "metrics.jsonl"
    write(path, 0, 6)
    path.write_bytes(path.read_bytes()[:150] + b"\xff" + path.read_bytes()[151:])
    history = History(path, 5)
    history.complete()
    assert history.records == [RECORDS[0], *RECORDS[2:5]]
    assert said == [f"warning: {path} lacks 1 of the steps that were done"]


def test_a_long_history_is_loaded_at_the_end(tmp_path, monkeypatch, said):
    """Until then it has only the latest steps."""
    monkeypatch.setattr("bertfast.reporting.metrics._LATEST", 150)  # bytes: two lines
    write(tmp_path / "whole.jsonl", 0, 6)
    write(tmp_path / "metrics.jsonl", 0, 5)
    history = History(tmp_path / "metrics.jsonl", 5)
    assert history.records == RECORDS[3:5]
    history.add(RECORDS[5])
    history.add(EVALUATIONS[1])
    history.complete()
    assert (history.records, history.evaluations) == (RECORDS, EVALUATIONS)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not said


def test_event_files_of_a_resumed_run_hold_each_step_once(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write(tmp_path / "metrics.jsonl", 0, 5, tensorboard=True)
    write(tmp_path / "metrics.jsonl", 3, 6, tensorboard=True)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {*Record._fields, *Evaluation._fields} - {"step"}
    assert [(event.step, event.value) for event in events.Scalars("mlm_loss")] == [
        (record.step, pytest.approx(record.mlm_loss)) for record in RECORDS
    ]
    assert [event.step for event in events.Scalars("eval_mlm_loss")] == [2, 5]
    assert [event.step for event in events.Scalars("eval_nsp_loss")] == [2]


def test_a_run_killed_while_it_makes_its_first_event_file_can_be_resumed(tmp_path, monkeypatch):
    """That takes a metrics.jsonl beside it."""
    tensorboard = pytest.importorskip("torch.utils.tensorboard")

    def killed(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(tensorboard, "SummaryWriter", killed)
    with pytest.raises(KeyboardInterrupt):
        History(tmp_path / "metrics.jsonl", 0, tensorboard=True)
    assert (tmp_path / "metrics.jsonl").exists()


def history_of(steps, pairs=True):
    generator = np.random.default_rng(0)
    history = History()
    losses = 6.5 - np.arange(steps) / steps + 0.1 * generator.standard_normal(steps)
    history.records = [Record(step, loss, 0.7 if pairs else 0.0, 1e-3) for step, loss in enumerate(losses.tolist())]
    pair_figures = (0.69, 0.5) if pairs else ()
    for step in range(steps // 10 - 1, steps, steps // 10) if steps > 9 else ():
        history.evaluations.append(Evaluation(step, 6.0, math.exp(6.0), 0.1, *pair_figures))
    return history


def words(picture):
    """The texts in an .svg: matplotlib draws them as shapes, with each text in a comment."""
    return [line.strip()[5:-4] for line in picture.read_text().splitlines() if line.strip().startswith("<!-- ")]


@pytest.mark.parametrize("objective", ["nsp", "sop", "none"])
@pytest.mark.parametrize("steps", [1, 50, 5000])
def test_a_figure_shows_the_losses_of_the_run(tmp_path, objective, steps):
    draw_losses(history_of(steps, objective != "none"), tmp_path, 6.49, objective)
    shown = words(tmp_path / "loss.svg")
    assert {"MLM loss (nats)", "unigram entropy: 6.49", "step"} <= set(shown)
    assert ("held-out text" in shown) == (steps > 1)
    assert ("each step" in shown) == ("training, smoothed" in shown) == (steps > 200)
    pairs = {"nsp": ["NSP loss (nats)"], "sop": ["SOP loss (nats)"], "none": []}[objective]
    assert [text for text in shown if text in ("NSP loss (nats)", "SOP loss (nats)")] == pairs
    assert ("chance: 0.69" in shown) == (objective != "none")


@pytest.mark.parametrize("name", ["loss.svg", "loss.png"])
def test_the_same_history_gives_the_same_figure_byte_for_byte(tmp_path, name):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        draw_losses(history_of(300), tmp_path / folder, 6.49, "nsp")
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_figure_of_a_long_run_is_small(tmp_path):
    draw_losses(history_of(100_000), tmp_path, 6.49, "nsp")
    assert (tmp_path / "loss.svg").stat().st_size < 500_000


@pytest.mark.parametrize("half", [0, 1, 4, 40])
def test_smoothing_is_the_mean_of_neighbours(half):
    values = np.random.default_rng(1).standard_normal(30)
    expected = [values[max(0, i - half) : i + half + 1].mean() for i in range(30)]
    np.testing.assert_allclose(_smoothed(values, half), expected, rtol=1e-12)
