"""bench/gpu.sh, rehearsed: every stage that has a use without a GPU, at tiny sizes; and what its figures rest on."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bertfast.config import BertConfig
from bertfast.sampling.sampler import Plan

SCRIPT = Path(__file__).parents[2] / "bench" / "gpu.sh"
PARTS = SCRIPT.with_suffix("")


@pytest.fixture(autouse=True)
def parts_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(PARTS))


def run(*command, **environment):
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", **environment}
    )


def test_rehearsal(tmp_path):
    done = run(SCRIPT, "--rehearse", str(tmp_path), PYTHON=sys.executable, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    entries = {entry["stage"]: entry for entry in json.loads((tmp_path / "results.json").read_text())}
    on_a_gpu = {"build", "self-test", "memcheck", "racecheck", "gpu-tests"}
    assert {name: entry["status"] for name, entry in entries.items()} == {
        **dict.fromkeys(on_a_gpu, "skipped"),
        **dict.fromkeys(["environment", "ceilings", "mlm-loss", "notebook", "base", "large"], "passed"),
    }
    for name, entry in entries.items():
        assert json.loads((tmp_path / f"{name}.json").read_text()) == entry
        assert f"\n{name} " in done.stdout
    assert entries["environment"]["result"]["versions"]["torch"] == importlib.metadata.version("torch")
    for each in entries["mlm-loss"]["result"]["sizes"]:
        assert 0 < max(each["chunks"]["errors"].values()) < 0.02
    for size in ("notebook", "base", "large"):
        result = entries[size]["result"]
        assert 0 < result["of_a_step"]["needed_operations"] < result["of_a_step"]["usual_operations"]
        ours = result["candidates"]["ours"]
        assert len(ours["seconds_per_step"]) == 2
        assert ours["said"][0].startswith("1 CPU process")
        assert ours["kernels"]
    assert any("transformers" in label for label in entries["base"]["result"]["candidates"])


def test_a_failing_stage_is_reported(tmp_path):
    """Its last line, an exit status, and what it had measured."""
    for stage, status, said in (("first", 0, ""), ("second", 1, "one\nno such luck\n"), ("third", 124, "at work")):
        (tmp_path / f"{stage}.log").write_text(said)
        (tmp_path / f"{stage}.json").write_text('{"measured": 1}')
        assert run(sys.executable, PARTS / "record.py", tmp_path, stage, str(status), "3").returncode == 0
    done = run(sys.executable, PARTS / "table.py", tmp_path / "results.json")
    assert done.returncode == 1
    assert [line.split("  ", 1)[1].split("s  ")[-1] for line in done.stdout.split("\n")[1:4]] == [
        "passed",
        "failed: no such luck",
        "out of time: at work",
    ]
    assert [entry["result"] for entry in json.loads((tmp_path / "results.json").read_text())] == [{"measured": 1}] * 3


def stub(path, *lines):
    """A program at `path`: a shell script."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def test_the_build_names_all_that_is_missing(tmp_path):
    """Of a Python that finds no module: what builds the package, and every package that it needs."""
    tomllib = pytest.importorskip("tomllib")
    python = stub(tmp_path / "python", '[ "$1" = --version ] && echo Python 3.0 && exit', "exit 1")
    done = run(PARTS / "build.sh", tmp_path / "build", PYTHON=str(python))
    assert done.returncode == 1
    missing = re.findall(r"(\w+) \(a module of Python 3\.0\)", done.stdout)
    project = tomllib.loads((SCRIPT.parents[1] / "pyproject.toml").read_text())["project"]
    needed = [re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]]
    assert missing == ["pip", "scikit_build_core", "pybind11", *needed]


@pytest.mark.parametrize("status", [0, 1, 134])
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_the_sanitizer_runs_whether_the_self_test_passes_or_fails(tmp_path, tool, status):
    program = stub(tmp_path / "self_test", "echo 7 results compared", f"exit {status}")
    stub(tmp_path / "bin" / "compute-sanitizer", 'echo "sanitizer $*"', "exit 3")
    done = run(PARTS / "self_test.sh", program, tool, PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert done.returncode == 3
    assert done.stdout == f"sanitizer --tool {tool} --error-exitcode 1 {program}\n"


def test_without_a_device_the_self_test_says_so_and_no_sanitizer_runs(tmp_path):
    program = stub(tmp_path / "self_test", "echo no CUDA device", "exit 77")
    stub(tmp_path / "bin" / "compute-sanitizer", "echo sanitizer")
    for tool in ([], ["memcheck"], ["racecheck"]):
        done = run(PARTS / "self_test.sh", program, *tool, PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin")
        assert (done.returncode, done.stdout) == (77, "no CUDA device\n")


GPU_TESTS = {
    "inference/test_b.py": "assert torch.compile(max)",
    "inference/test_a.py": "os.abort()",
    "training/test_a.py": "assert False",
    "training/test_z.py": "assert Graphs(1)",
    "training/test_on_the_cpu.py": None,
}


@pytest.fixture
def gpu_tests(tmp_path, monkeypatch):
    """The stage, with a folder of tests of which one passes, one fails and one ends the process."""
    stage = importlib.import_module("gpu_tests")
    for name, last in GPU_TESTS.items():
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = "host" if last is None else "gpu"
        lines = [
            "import os, types",
            "import pytest",
            "Graphs, torch = bool, types.SimpleNamespace(compile=bool)",
            f"pytestmark = pytest.mark.{mark}",
            "def test_first():",
            "    pass",
            "def test_last():",
            f"    {last or 'pass'}",
        ]
        path.write_text("\n".join(lines))
    monkeypatch.setattr(stage, "TESTS", tmp_path / "tests")
    monkeypatch.setattr(stage, "require", lambda device: None)
    monkeypatch.setattr(sys, "argv", ["gpu_tests.py"])
    monkeypatch.setenv("RESULT", str(tmp_path / "gpu-tests.json"))
    return stage


def test_gpu_tests_replay_first_and_compile_last(gpu_tests):
    names = [str(path.relative_to(gpu_tests.TESTS)) for path in gpu_tests.test_files()]
    assert names == ["training/test_z.py", "inference/test_a.py", "training/test_a.py", "inference/test_b.py"]


def test_one_file_of_gpu_tests_does_not_spoil_another(gpu_tests, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(gpu_tests, "save", lambda result: saved.append(result["outcomes"].total()))
    with pytest.raises(SystemExit) as ended:
        gpu_tests.main()
    said = str(ended.value)
    assert said.startswith("{'passed': 6, 'failed': 1}: ") or said.startswith("{'failed': 1, 'passed': 6}: ")
    assert "training/test_a.py::test_last" in said
    assert re.search(r"exit status -6 in \S*inference/test_a.py::test_last", said)
    assert len(saved) == 4 and saved == sorted(saved)  # after each file


def test_a_file_of_gpu_tests_that_hangs_is_ended(gpu_tests, tmp_path):
    path = gpu_tests.TESTS / "test_hangs.py"
    path.write_text("import signal\n\nsignal.pause()\n")
    assert gpu_tests.run_file(path, tmp_path, 0.1)["ended"] == "out of time in test_hangs.py"


def test_every_gpu_test_is_in_a_file_that_the_stage_runs(request):
    """Of all that this run of pytest has collected."""
    files = importlib.import_module("gpu_tests").test_files()
    assert {item.path for item in request.session.items if item.get_closest_marker("gpu")} <= set(files)


def test_without_a_device_a_stage_is_skipped(tmp_path):
    result = str(tmp_path / "ceilings.json")
    done = run(sys.executable, PARTS / "ceilings.py", CUDA_VISIBLE_DEVICES="", RESULT=result)
    assert done.returncode == 77
    assert done.stdout.endswith("sees no CUDA device\n")


def test_operations_are_those_of_transformers():
    """Of whole layers, and a head that predicts every token, as theirs does."""
    from operations import step_operations

    transformers = pytest.importorskip("transformers")
    sizes = BertConfig(vocab_size=97, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80)
    config = transformers.BertConfig(
        vocab_size=97, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80
    )
    config._attn_implementation = "eager"
    model = transformers.BertForPreTraining(config)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(5, 12, dtype=torch.int64))
    next_sentence = 5 * 2 * 48 * 2  # the head's own product is left out
    length = torch.full((5,), 12)
    operations = step_operations(sizes, Plan(length, length))
    assert operations["usual"] == 3 * (counter.get_total_flops() - next_sentence)
    # With every token but the first predicted, the last layer is needed in full.
    operations = step_operations(sizes, Plan(length, length - 1))
    assert operations["needed"] == operations["usual"]
    operations = step_operations(sizes, Plan(length, length - 6))
    assert operations["needed"] < operations["usual"]


def test_generated_corpus():
    from generated_corpus import generated_corpus

    corpus = generated_corpus(1000, 5.0, 20_000)
    lengths = np.diff(corpus.sentence_offsets)
    assert lengths.mean() == pytest.approx(25.3, rel=0.02)
    assert lengths.std() == pytest.approx(12.9, rel=0.03)
    assert corpus.num_sentences / corpus.num_documents == pytest.approx(5, rel=0.05)
    assert corpus.token_counts[:5].sum() == 0
    assert corpus.token_counts[5] / corpus.token_counts[5 + 9] == pytest.approx(10, rel=0.05)
    assert corpus.token_counts.sum() == corpus.num_tokens == corpus.sentence_offsets[-1]
    assert int(corpus.tokens.max()) < corpus.vocab_size
    same = generated_corpus(1000, 5.0, 20_000)
    assert np.array_equal(corpus.tokens, same.tokens)


def test_the_self_test_launches_every_kernel():
    root = SCRIPT.parents[1]
    called = (root / "tests" / "cpp" / "device_self_test.cpp").read_text()
    launchers = set(re.findall(r"^void (\w+)\(", (root / "csrc" / "cuda" / "launchers.h").read_text(), re.MULTILINE))
    assert len(launchers) > 10
    for name in launchers - {"column_sums"}:  # the second half of others
        assert f"cuda::{name}(" in called, name
