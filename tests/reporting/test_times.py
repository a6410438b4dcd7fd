"""times.jsonl: when each step was done, over all parts of a run."""

import json

from bertfast.reporting.times import Times


def seconds(path):
    return {entry["step"]: entry["seconds"] for entry in map(json.loads, path.read_text().splitlines())}


def test_a_resumed_run_counts_on_from_the_step_that_it_resumes_at(tmp_path):
    path = tmp_path / "times.jsonl"
    before = Times(path, 0)
    for step in range(4):
        before.add(step, 2.5 * (step + 1))
    with path.open("a") as file:
        file.write('{"step": 4, "sec')  # the crash came in the middle of a line
    resumed = Times(path, 3)
    resumed.add(3, 1.0)
    assert seconds(path) == {0: 2.5, 1: 5.0, 2: 7.5, 3: 8.5}


def test_a_run_whose_times_are_lost_counts_from_0(tmp_path):
    path = tmp_path / "times.jsonl"
    path.write_bytes(b"[1]\n{}\n\xff\nnull\n" + b"[" * 10_000 + b'\n{"step": 1, "seconds": "x"}\n')
    Times(path, 7).add(7, 1.0)
    assert seconds(path) == {7: 1.0}


def test_a_run_without_a_folder_keeps_no_lines():
    times = Times()
    times.add(0, 1.5)
    times.write()
    assert times.before == 0
    assert times._file._unwritten == b""  # it would grow with every step
