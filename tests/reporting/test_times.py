"""times.jsonl: when each step ended, over all parts of a run."""

import json

from bertfast.reporting.times import Times


def seconds(path):
    return {entry["step"]: entry["seconds"] for entry in map(json.loads, path.read_text().splitlines())}


def test_a_resumed_run_continues_from_the_time_of_its_last_step(tmp_path):
    path = tmp_path / "times.jsonl"
    before = Times(path, 0)
    for step in range(4):
        before.add(step, 2.5 * (step + 1))
    with path.open("a") as file:
        file.write('{"step": 4, "sec')  # a line cut short by a crash
    resumed = Times(path, 3)
    resumed.add(3, 1.0)
    assert seconds(path) == {0: 2.5, 1: 5.0, 2: 7.5, 3: 8.5}


def test_a_damaged_file_starts_again_from_0(tmp_path):
    path = tmp_path / "times.jsonl"
    path.write_bytes(
        b"[1]\n{}\n\xff\nnull\n" + b"[" * 10_000 + b'\n{"step": 1, "seconds": "x"}\n{"step": 2, "seconds": NaN}\n'
    )
    Times(path, 7).add(7, 1.0)
    assert seconds(path) == {7: 1.0}


def test_without_a_folder_no_line_is_kept():
    times = Times()
    times.add(0, 1.5)
    times.write()
    assert times.before == 0
    assert times._file._unwritten == b""  # otherwise it would grow with every step
