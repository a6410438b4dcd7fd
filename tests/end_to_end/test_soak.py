"""A long run takes no more memory and no more files than a short one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from support.torch_threads import torch_threads

from bertfast.config import BertConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.model import Bert
from bertfast.reporting.metrics import Evaluation, History, Record
from bertfast.training.launch import train

STEPS, WARM = 20_000, 2_000


@pytest.mark.long
def test_memory_and_files_stay_flat(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 steps with a checkpoint every 50th: under 2% more memory than after the first 2,000; no file more."""
    memory: list[int] = []
    files: list[int] = []
    add = History.add

    def watched(history: History, entry: Record | Evaluation) -> None:
        add(history, entry)
        # Between two checkpoints, so that none is being written.
        if entry.step >= WARM and entry.step % 500 == 25:
            memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
            files.append(len(list(Path("/proc/self/fd").iterdir())))

    monkeypatch.setattr(History, "add", watched)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
    model = Bert(BertConfig(vocab_size=corpus.vocab_size, **sizes))
    config = TrainConfig(
        steps=STEPS, batch_size=8, shards=1, max_len=16, device="cpu", precision="fp32", checkpoint_every=50, eval=True
    )
    with torch_threads(1):  # a second one would only wait, in steps this small
        train(model, corpus, config, tmp_path / "out")
    growth = max(memory) / memory[0] - 1
    print(f"{memory[0] / 1e6:.1f} MB after {WARM:,} steps, at most {growth:.2%} more; files {sorted(set(files))}")
    assert len(memory) == (STEPS - WARM) // 500
    assert growth < 0.02
    assert max(files) <= files[0]
