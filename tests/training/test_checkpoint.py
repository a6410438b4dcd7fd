"""Checkpoints: written whole, verified, and refused if a single bit is wrong."""

from __future__ import annotations

import dataclasses
import random
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.checkpoints import RUN, Training
from support.messages import listening
from support.small_run import CONFIG, SHARDED, make_model
from support.torchrun import HANGS
from torch import Tensor, nn

from bertfast import files
from bertfast.data.corpus import Corpus
from bertfast.errors import InputError
from bertfast.training import checkpoint
from bertfast.training.optimizer import make_optimizer
from bertfast.training.setup import Setup


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_written_is_read(training: Training, tmp_path: Path) -> None:
    """And training continues from it exactly."""
    training.step()
    training.writer.save_now(1)
    found = training.newest()
    assert found is not None
    assert (found.path.name, found.step, found.run) == ("step-00000001.safetensors", 1, RUN)
    assert same(found.tensors, training.state())
    other = Training(tmp_path / "other")
    assert checkpoint.misfit(found, other.model, other.optimizer) is None
    checkpoint.restore(found, other.model, other.optimizer)
    for each in (training, other):
        each.model.zero_grad()
        each.step()
    assert same(training.state(), other.state())


def test_checkpoints_of_torchs_adam_are_resumed(training: Training, tmp_path: Path) -> None:
    """Runs of older versions used it."""
    theirs = torch.optim.Adam(training.model.parameters(), lr=0.1)
    for _ in range(3):
        training.model(torch.ones(1, 3)).square().sum().backward()
        theirs.step()
        theirs.zero_grad()
    tensors = checkpoint.state(training.model, theirs)  # type: ignore[arg-type]
    checkpoint.Writer(training.folder, 2, tmp_path / "metrics.jsonl", RUN, tensors).save_now(3)
    found, other = training.newest(), Training(tmp_path / "other")
    assert found is not None
    checkpoint.restore(found, other.model, other.optimizer)
    other.step()
    training.model(torch.ones(1, 3)).square().sum().backward()
    theirs.step()
    torch.testing.assert_close(list(other.model.parameters()), list(training.model.parameters()), rtol=1e-6, atol=1e-7)


def test_muons_momentum_is_kept(corpus: Corpus, tmp_path: Path) -> None:
    """Beside AdamW's averages of the rest; and neither optimizer can resume from the other's checkpoint."""
    made = []
    for kind in ("muon", "muon", "adamw"):
        model = make_model(corpus)
        setup = Setup(model, [], dataclasses.replace(CONFIG, optimizer=kind), SHARDED, torch.float32)
        made.append((model, make_optimizer(setup)))
    (model, optimizer), (other, its), (plain, adamw) = made
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(each.shape, generator=generator) for each in optimizer.parameters]
    optimizer.step(gradients, *map(torch.tensor, (0.1, 1.0, 0.0, 0.1)))
    (tmp_path / "metrics.jsonl").touch()
    for name, each in (("one", (model, optimizer)), ("two", (plain, adamw))):
        checkpoint.Writer(tmp_path / name, 2, tmp_path / "metrics.jsonl", RUN, checkpoint.state(*each)).save_now(1)
    found, foreign = (checkpoint.newest(tmp_path / name) for name in ("one", "two"))
    assert found is not None and foreign is not None
    kinds = {kind for kind, name in (each.split(".", 1) for each in found.tensors) if name == "layers.1.output.weight"}
    assert kinds == {"model", "momentum"}
    assert checkpoint.misfit(found, other, its) is None
    checkpoint.restore(found, other, its)
    assert same(checkpoint.state(other, its), checkpoint.state(model, optimizer))
    for each in (optimizer, its):
        each.step(gradients, *map(torch.tensor, (0.1, 1.0, 0.0, 0.1)))
    assert same(checkpoint.state(other, its), checkpoint.state(model, optimizer))
    assert checkpoint.misfit(found, plain, adamw) == "exp_avg.layers.0.query.weight is missing"
    assert checkpoint.misfit(foreign, model, optimizer) == "momentum.layers.0.query.weight is missing"


def test_any_reader_of_safetensors_reads_it(training: Training) -> None:
    training.step()
    training.writer.save_now(1)
    loaded = safetensors.torch.load_file(training.folder / "step-00000001.safetensors")
    assert loaded.pop("digest").dtype == torch.uint8
    assert same(loaded, training.state())


def test_the_tensors_are_those_of_the_step(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training continues while the thread writes, and the next checkpoint waits for the thread."""
    go, order = threading.Event(), []
    write = checkpoint._write

    def slow(path: Path, *rest: object) -> None:
        assert go.wait(HANGS)
        order.append(path.name)
        write(path, *rest)

    monkeypatch.setattr(checkpoint, "_write", slow)
    training.step()
    at_one = training.state()
    training.writer.save(1)
    training.step()
    assert not same(at_one, training.state())
    at_two = training.state()
    pending = training.writer._pending
    assert pending is not None
    result = pending.result

    def waiting() -> None:
        order.append("the second waits")
        go.set()
        result()

    monkeypatch.setattr(pending, "result", waiting)
    training.writer.save(2)
    go.set()  # also where it has not waited
    training.step()
    training.writer.close()
    assert order == ["the second waits", "step-00000001.safetensors", "step-00000002.safetensors"]
    for step, state in ((1, at_one), (2, at_two)):
        assert same(checkpoint._load(training.folder / f"step-{step:08d}.safetensors").tensors, state)


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    training = Training(tmp_path, keep)
    training.folder.mkdir()
    (training.folder / ".step-00000001.bertfast-partial.safetensors").write_bytes(b"of a run that was killed")
    for step in (1, 2, 3, 99_999_999, 100_000_000):
        training.writer.save(step)
    training.writer.close()
    steps = [1, 2, 3, 99_999_999, 100_000_000][-keep:]
    assert {path.name for path in training.folder.iterdir()} == {f"step-{step:08d}.safetensors" for step in steps}
    found = training.newest()
    assert found is not None
    assert found.step == 100_000_000


def test_what_a_killed_run_left_is_removed(training: Training) -> None:
    """It was killed while it wrote, or before it removed the oldest."""
    for step in (1, 2):
        training.writer.save_now(step)
    (training.folder / "step-00000003.safetensors").write_bytes(b"x")
    (training.folder / ".step-00000004.bertfast-partial.safetensors").write_bytes(b"x")
    (training.folder / "my.partial.safetensors").write_bytes(b"a user's")
    training.writer.tidy(3)
    assert {path.name for path in training.folder.iterdir()} == {
        "step-00000002.safetensors",
        "step-00000003.safetensors",
        "my.partial.safetensors",
    }


def test_it_is_on_the_disk_before_it_has_its_name(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    """And metrics.jsonl before either; the oldest goes last."""
    for step in (1, 2):
        training.writer.save_now(step)
    order: list[str] = []

    def note(owner: object, name: str) -> None:
        function = getattr(owner, name)

        def noted(path: Path, *rest: object, **options: object) -> object:
            order.append(f"{name} {path.name}")
            return function(path, *rest, **options)

        monkeypatch.setattr(owner, name, noted)

    for owner, name in ((files, "sync"), (checkpoint, "sync"), (Path, "replace"), (Path, "unlink")):
        note(owner, name)
    training.writer.save_now(3)
    order.remove("unlink .step-00000003.bertfast-partial.safetensors")  # where writing failed, it would still be there
    assert order == [
        "sync metrics.jsonl",
        "sync .step-00000003.bertfast-partial.safetensors",
        "replace .step-00000003.bertfast-partial.safetensors",
        "sync checkpoints",
        "unlink step-00000001.safetensors",
    ]


def test_a_disk_that_refuses_is_reported_once(training: Training, said: list[str]) -> None:
    training.folder.write_text("a file where the folder should be")
    training.writer.save(1)
    training.writer.save(2)
    with pytest.raises(InputError, match=r"the checkpoint .*step-00000003.safetensors can't be written: File exists"):
        training.writer.save_now(3)
    training.folder.unlink()
    training.writer.save(4)
    training.writer.close()
    assert len(said) == 1
    assert "step-00000001.safetensors can't be written: File exists; training continues" in said[0]
    assert [path.name for path in training.folder.iterdir()] == ["step-00000004.safetensors"]


def test_an_error_in_the_thread_is_not_lost(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_write", lambda *_: 1 / 0)
    training.writer.save(1)
    with pytest.raises(ZeroDivisionError):
        training.writer.save(2)


# --- damage


@pytest.fixture
def two(training: Training) -> Training:
    """Two checkpoints, of the steps 1 and 2."""
    for step in (1, 2):
        training.step()
        training.writer.save_now(step)
    return training


def takes_the_one_before(two: Training) -> bool:
    said: list[str] = []
    with listening(said.append):
        found = two.newest()
    assert found is not None
    return found.step == 1 and len(said) == 1 and "step-00000002.safetensors is damaged" in said[0]


def test_cut_short(two: Training) -> None:
    path = two.folder / "step-00000002.safetensors"
    content = path.read_bytes()
    for length in [*(len(content) * part // 20 for part in range(20)), 1, 7, 8, 15, 16, 17, len(content) - 1]:
        path.write_bytes(content[:length])
        assert takes_the_one_before(two), length
    path.write_bytes(content + b"\0")
    assert takes_the_one_before(two)
    path.write_bytes(content)
    assert not takes_the_one_before(two)


def test_a_single_bit(two: Training) -> None:
    """Every byte of the file, header and digest included, with one of its bits flipped."""
    path = two.folder / "step-00000002.safetensors"
    content = bytearray(path.read_bytes())
    generator = random.Random(0)
    for i in range(len(content)):
        bit = 1 << generator.randrange(8)
        content[i] ^= bit
        path.write_bytes(content)
        assert takes_the_one_before(two), i
        content[i] ^= bit


def test_all_damaged(two: Training, said: list[str]) -> None:
    for path in two.folder.iterdir():
        path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"every checkpoint in .* is damaged: start over with another --out"):
        two.newest()
    assert len(said) == 2


def test_none(training: Training) -> None:
    assert training.newest() is None
    training.folder.mkdir()
    (training.folder / "step-one.safetensors").touch()
    assert training.newest() is None


DEEP = "[" * 100_000
FOREIGN = {
    "no metadata": {},
    "no step": {"run": "{}"},
    "another step": {"step": "3", "run": "{}"},
    "no number": {"step": "two", "run": "{}"},
    "no run": {"step": "2"},
    "run that is no object": {"step": "2", "run": "[]"},
    "run that is no JSON": {"step": "2", "run": "{"},
    "run that is too deep": {"step": "2", "run": DEEP},
    "length that is no number": {"step": "2", "run": '{"--steps": "x"}'},
    "ops without names": {"step": "2", "run": '{"computed in plain torch": 7}'},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_one_whose_digest_is_right_but_nothing_else(two: Training, case: str) -> None:
    checkpoint._write(two.folder / "step-00000002.safetensors", two.state(), FOREIGN[case])
    assert takes_the_one_before(two)


def test_of_another_model(two: Training, tmp_path: Path) -> None:
    found = two.newest()
    assert found is not None
    wider = Training(tmp_path / "wider", width=5)
    assert (
        checkpoint.misfit(found, wider.model, wider.optimizer) == "model.0.weight is (4, 3) torch.float32, not (5, 3)"
    )
    longer = nn.Sequential(*two.model, nn.Linear(2, 2))
    assert checkpoint.misfit(found, longer, two.optimizer) == "model.2.weight is missing"
    del found.tensors["exp_avg_sq.1.bias"]
    assert checkpoint.misfit(found, two.model, two.optimizer) == "exp_avg_sq.1.bias is missing"
