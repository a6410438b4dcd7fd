"""bench/gpu.sh, rehearsed: every stage that is useful without a GPU, at tiny sizes; and the arithmetic of figures."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
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


SKIPPED, PASSED = "skipped", "passed"
CHECK = {
    "install": SKIPPED,
    "environment": PASSED,
    "ceilings": PASSED,
    "device-check": PASSED,
    "self-test": SKIPPED,
    **{f"ladder-{rung}": PASSED for rung in ("cpu", "twins", "eager")},
    **{f"ladder-{rung}": SKIPPED for rung in ("graph", "fused")},
    "gpu-tests": SKIPPED,
    **{f"profile-{size}": PASSED for size in ("notebook", "base")},
}
FIGURES = {
    "install": SKIPPED,
    "environment": PASSED,
    "device-check": PASSED,
    **{f"{size}-ours": PASSED for size in ("notebook", "base", "large")},
    "mlm-loss": PASSED,
    "notebook-d2l": PASSED if importlib.util.find_spec("d2l") else SKIPPED,
    **{f"{size}-transformers": PASSED for size in ("notebook", "base")},
    "racecheck": SKIPPED,
}


def rehearsed(call, folder, expected):
    """Each stage's result."""
    environment = {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = run(SCRIPT, call, "--rehearse", str(folder), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["logs.tgz", "results.json"]
    entries = {entry["stage"]: entry for entry in json.loads((folder / "results.json").read_text())}
    assert {name: entry["status"] for name, entry in entries.items()} == expected
    with tarfile.open(folder / "logs.tgz") as logs:
        assert {f"logs/{name}.log" for name in expected} <= set(logs.getnames())
    for name in expected:
        assert f"\n{name} " in f"\n{done.stdout}"
    assert entries["environment"]["result"]["versions"]["torch"] == importlib.metadata.version("torch")
    return {name: entry.get("result") for name, entry in entries.items()}


@pytest.mark.documents
def test_check_rehearsed(tmp_path):
    results = rehearsed("check", tmp_path, CHECK)
    assert results["device-check"]["good"]
    for rung in ("twins", "eager"):
        losses = results[f"ladder-{rung}"]["losses"]
        assert losses == pytest.approx(results["ladder-cpu"]["losses"], rel=0.02)
        assert results[f"ladder-{rung}"]["ms"] != 0
    assert results["profile-notebook"]["kernels"]


@pytest.mark.documents
def test_figures_rehearsed(tmp_path):
    results = rehearsed("figures", tmp_path, FIGURES)
    for each in results["mlm-loss"]["sizes"]:
        assert 0 < max(each["chunks"]["errors"].values()) < 0.02
    for size in ("notebook", "base", "large"):
        ours = results[f"{size}-ours"]
        assert 0 < ours["of_a_step"]["needed_operations"] < ours["of_a_step"]["usual_operations"]
        assert len(ours["seconds_per_step"]) == 2
        assert any(line.startswith("1 CPU process") for line in ours["said"])


@pytest.mark.parametrize(("call", "stages"), [("check", CHECK), ("figures", FIGURES)])
def test_the_budget_bounds_the_whole(tmp_path, call, stages):
    """No stage begins in the last five seconds, and each is recorded, in order: what matters most comes first."""
    done = run(SCRIPT, call, "--seconds", "4", tmp_path, PYTHON=sys.executable)
    assert done.returncode == 1
    entries = json.loads((tmp_path / "results.json").read_text())
    assert [entry["stage"] for entry in entries] == list(stages)
    assert {(entry["status"], entry["reason"]) for entry in entries} == {("out of time", "no time left")}


def test_an_unknown_call_is_refused(tmp_path):
    done = run(SCRIPT, "numbers")
    assert done.returncode == 2 and "bench/gpu.sh figures" in done.stdout


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


def test_a_stage_that_is_cut_short_keeps_what_it_measured(tmp_path, monkeypatch):
    """And the table shows that."""
    ceilings = importlib.import_module("ceilings")
    rates = iter([1.5, 2.5, 3.5])
    monkeypatch.setattr(ceilings, "copy", lambda *what: 7.0)
    monkeypatch.setattr(ceilings, "product", lambda *what: next(rates))
    monkeypatch.setattr(sys, "argv", ["ceilings.py", "--device", "cpu", "--tiny"])
    monkeypatch.setenv("RESULT", str(tmp_path / "ceilings.json"))
    with pytest.raises(StopIteration):
        ceilings.main()
    results = {
        "ceilings": json.loads((tmp_path / "ceilings.json").read_text()),
        "mlm-loss": {"sizes": [{"rows_hidden_words": [5, 6, 7], "chunks": {"errors": {"loss": 1e-3}}}]},
        "base-ours": {"size": "base", "who": "ours", "seconds_per_step": []},
    }
    entries = [{"stage": n, "status": "out of time", "seconds": 9, "result": each} for n, each in results.items()]
    (tmp_path / "results.json").write_text(json.dumps(entries))
    done = run(sys.executable, PARTS / "table.py", tmp_path / "results.json")
    assert (done.returncode, done.stderr) == (1, "")
    assert "\ncopy 7 GB/s" in done.stdout
    assert re.findall(r" x \d+ +(\S+) +(\S+)$", done.stdout, re.M) == [("1.50", "2.50"), ("3.50", "-")]
    assert "chunks - (1.0e-03)" in done.stdout


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


WHEEL = "bertfast-1-cp312-cp312-linux_x86_64.whl"


@pytest.mark.parametrize("carried", [True, False])
def test_the_package_is_what_was_built_beforehand_or_built_here(tmp_path, carried):
    """In a tree of its own. What is carried needs no network."""
    parts, work = tmp_path / "bench" / "gpu", tmp_path / "work"
    parts.mkdir(parents=True)
    work.mkdir()
    shutil.copy(PARTS / "install.sh", parts)
    stub(parts / "build.sh", 'mkdir -p "$1/tests/cpp"', 'echo built >"$1/tests/cpp/device_self_test"')
    if carried:
        stub(tmp_path / ".carry" / "device_self_test", "carried")
        (tmp_path / ".carry" / WHEEL).touch()
    python = stub(tmp_path / "python", f'echo "$*" >>{tmp_path}/calls')
    done = run(parts / "install.sh", work, PYTHON=str(python))
    assert done.returncode == 0, done.stderr
    assert ("carried" if carried else "built") in (work / "device_self_test").read_text()
    installs = [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("-m pip install")]
    assert len(installs) == carried
    assert all(" --no-index " in line and line.endswith(f" .carry/{WHEEL}") for line in installs)


SELF_TEST = """
case $1 in
  --list) echo rows attention sampler ;;
  rows) echo 7 results compared ;;
  attention) kill -ABRT $$ ;;
  sampler) echo 3 differ; exit 1 ;;
esac
"""


def self_test(folder, program, *tool):
    stub(folder / "bin" / "compute-sanitizer", 'echo "sanitizer $*"', "exit 3")
    environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "RESULT": str(folder / "self-test.json")}
    return run(sys.executable, PARTS / "self_test.py", program, *tool, **environment)


def test_what_fails_of_the_self_test_runs_under_memcheck(tmp_path):
    program = stub(tmp_path / "self_test", SELF_TEST)
    done = self_test(tmp_path, program)
    assert done.returncode == 1 and done.stderr == "failed: attention, sampler\n"
    assert json.loads((tmp_path / "self-test.json").read_text())["statuses"] == {
        "rows": 0,
        "attention": -6,
        "sampler": 1,
    }
    assert re.findall(r"sanitizer --tool memcheck --error-exitcode 1 \S* (\w+)", done.stdout) == [
        "attention",
        "sampler",
    ]


def test_a_self_test_that_does_not_start_is_one_line(tmp_path):
    done = self_test(tmp_path, stub(tmp_path / "self_test", "echo no such library", "exit 127"))
    assert (done.returncode, done.stderr) == (1, "self_test does not start: no such library\n")


def test_every_group_runs_under_a_tool(tmp_path):
    done = self_test(tmp_path, stub(tmp_path / "self_test", SELF_TEST), "racecheck")
    assert done.returncode == 1
    assert re.findall(r"sanitizer --tool racecheck .* (\w+)\n", done.stdout) == ["rows", "attention", "sampler"]


def test_without_a_device_the_self_test_says_so(tmp_path):
    program = stub(tmp_path / "self_test", '[ "$1" = --list ] && echo rows && exit', "echo no CUDA device", "exit 77")
    done = self_test(tmp_path, program)
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
    assert re.search(r"exit status -6 in inference/test_a.py::test_last", said)
    assert len(saved) == 4 and saved == sorted(saved)  # after each file


def test_a_file_of_gpu_tests_that_hangs_is_ended(gpu_tests, tmp_path):
    path = gpu_tests.TESTS / "test_hangs.py"
    path.write_text("import signal\n\nsignal.pause()\n")
    assert gpu_tests.run_file(path, tmp_path, 0.1)["ended"] == "out of time in test_hangs.py"


def test_at_the_stages_end_no_further_file_begins(gpu_tests, tmp_path, monkeypatch):
    """And what has been found is saved. All processes of the stage get its SIGTERM."""
    (gpu_tests.TESTS / "training" / "test_z.py").write_text(
        "import os  # mark.gpu Graphs(\nos.kill(os.getppid(), 15)\n"
    )
    monkeypatch.setattr(gpu_tests, "AT_A_TIME", 1)
    monkeypatch.setattr(gpu_tests, "ending", threading.Event())
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match=r"no time left for test_b\.py"):
            gpu_tests.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "gpu-tests.json").exists()


def test_every_gpu_test_is_in_a_file_that_the_stage_runs(request):
    """Of all that this run of pytest has collected."""
    marked = {item.path for item in request.session.items if item.get_closest_marker("gpu")}
    if not marked:
        pytest.skip("this run of pytest has collected no test that needs a GPU")
    assert marked <= set(importlib.import_module("gpu_tests").test_files())


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
    for name in launchers - {"sum_slices", "pin_read_only", "unpin"}:  # half of another kernel, and none
        assert f"cuda::{name}(" in called, name
