"""bench/gpu.sh, rehearsed: every stage that has a use without a GPU, at tiny sizes; and what its figures rest on."""

from __future__ import annotations

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
from bertfast.sampler import Plan

SCRIPT = Path(__file__).parent.parent / "bench" / "gpu.sh"
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


def test_a_stage_that_fails_is_told(tmp_path):
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
