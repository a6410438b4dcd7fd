"""Which form the masked-LM loss takes, that the run says so, and that a resumed run keeps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_mlm_loss import NEEDS_GPU
from test_trainer import CONFIG, CPU, corpus, make_model  # noqa: F401 (corpus is a fixture)

from bertfast import loss_form, model, ranks, trainer
from bertfast.config import TrainConfig
from bertfast.corpus import Corpus
from bertfast.devices import World, make_world
from bertfast.errors import InputError
from bertfast.identity import of_all_ranks
from bertfast.launch import pretrain
from bertfast.loss_form import LossForm, choose_loss_form, of_rank_0
from bertfast.ops.fused_mlm_loss import SHARED_BYTES, can_fuse
from bertfast.ops.masked_lm_loss import masked_lm_loss
from bertfast.sampler import Sampler

GPU = torch.device("cuda", 0)
ALONE = World(0, 1, [CPU], [CPU], False, 1)


def test_what_can_be_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    for room, enough in ((SHARED_BYTES, True), (100 << 10, False)):
        properties = SimpleNamespace(shared_memory_per_multiprocessor=room)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
        assert can_fuse(128, torch.bfloat16, GPU) is can_fuse(256, torch.bfloat16, GPU) is enough
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(shared_memory_per_multiprocessor=1 << 20)
    )
    assert not can_fuse(132, torch.bfloat16, GPU)
    assert not can_fuse(264, torch.bfloat16, GPU)
    assert not can_fuse(128, torch.float32, GPU)
    assert not can_fuse(128, torch.bfloat16, CPU)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A device that could, and is faster fused; the sizes that were timed."""
    sizes: list[tuple[int, int]] = []

    def made_up(model: object, sequences: int, predictions: int, device: torch.device) -> None:
        sizes.append((sequences, predictions))

    monkeypatch.setattr(loss_form, "can_fuse", lambda *_: True)
    monkeypatch.setattr(loss_form, "_made_up_loss", made_up)
    monkeypatch.setattr(loss_form, "_agree", lambda *_: True)
    monkeypatch.setattr(loss_form, "_milliseconds", lambda *_: (2.0, 1.25))
    return sizes


def choose(corpus: Corpus, world: World = ALONE, resumed: dict[str, str] | None = None) -> LossForm:  # noqa: F811
    return choose_loss_form(make_model(corpus), Sampler(corpus, CONFIG), CONFIG, world, torch.bfloat16, resumed)


def test_the_faster_one_is_taken_and_said(corpus: Corpus, timed: list[tuple[int, int]]) -> None:  # noqa: F811
    assert choose(corpus) == ("fused", "masked-LM loss fused: 2.000 ms in chunks, 1.250 ms fused")
    predictions = int(Sampler(corpus, CONFIG).plan(0, CONFIG.batch_size).num_masked.sum())
    assert choose(corpus, World(0, 4, [CPU] * 4, [CPU], False, 4)).is_fused
    assert timed == [(12, predictions), (3, predictions // 4)]


def test_where_there_is_no_choice(corpus: Corpus, timed: list[tuple[int, int]]) -> None:  # noqa: F811
    deterministic = make_world(TrainConfig(deterministic=True), [CPU], [CPU])
    for world in (deterministic, World(1, 2, [CPU] * 2, [CPU], False, 2), World(0, 1, [CPU] * 2, [CPU] * 2, False, 2)):
        assert choose(corpus, world) == ("in chunks", "")
    assert timed == []


def test_rank_0_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    told = LossForm("fused", "for a reason"), LossForm("in chunks")
    for form in told:
        assert of_rank_0(form, ALONE).is_fused is form.is_fused
    monkeypatch.setattr(ranks.dist, "broadcast", lambda number, rank: number.fill_(1))
    assert of_rank_0(told[1], World(1, 2, [CPU] * 2, [CPU], False, 2)).is_fused
    run = {"masked-LM loss": "in chunks", "--lr": 1.0}
    assert of_all_ranks(run, ALONE, CONFIG) == {"--lr": 1.0, "--device": "cpu"}


def test_nothing_is_timed_on_a_cpu(corpus: Corpus) -> None:  # noqa: F811
    assert choose(corpus) == ("in chunks", "")


def test_a_resumed_run_keeps_its_form(
    corpus: Corpus,  # noqa: F811
    timed: list[tuple[int, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is faster now; and the loss is asked for in that form while the run lasts."""
    asked: list[bool] = []

    def loss(*arguments: object) -> torch.Tensor:
        asked.append(bool(arguments[-1]))
        return masked_lm_loss(*arguments[:-1])  # type: ignore[arg-type]

    plain = trainer.identity
    monkeypatch.setattr(model, "masked_lm_loss", loss)
    # As on a GPU.
    monkeypatch.setattr(trainer, "identity", lambda *said: {**plain(*said), "masked-LM loss": said[-1]})
    said: list[str] = []
    config = dataclasses.replace(CONFIG, deterministic=False, checkpoint_every=2)
    run = pretrain(make_model(corpus), corpus, config, tmp_path, say=said.append)
    assert said[1] == "masked-LM loss fused: 2.000 ms in chunks, 1.250 ms fused"
    assert asked == [True] * config.steps
    assert not run.model.masked_lm_head.fused

    (tmp_path / "checkpoints" / "step-00000003.safetensors").unlink()
    monkeypatch.setattr(loss_form, "_milliseconds", lambda *_: (1.0, 2.0))
    said.clear()
    pretrain(make_model(corpus), corpus, config, tmp_path, resume=True, say=said.append)
    assert "masked-LM loss fused, as before" in said
    assert asked == [True] * (config.steps + 1)

    monkeypatch.setattr(loss_form, "can_fuse", lambda *_: False)
    with pytest.raises(InputError, match="masked-LM loss: fused -> in chunks"):
        pretrain(make_model(corpus), corpus, config, tmp_path, resume=True, say=said.append)


Asked = list[tuple[tuple[int, ...], torch.dtype, object]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What the head's loss is asked for, which is computed in chunks whatever the form."""
    calls: Asked = []

    def loss(states: torch.Tensor, *arguments: object) -> torch.Tensor:
        calls.append((tuple(states.shape), states.dtype, arguments[-1]))
        return masked_lm_loss(states, *arguments[:-1])  # type: ignore[arg-type]

    monkeypatch.setattr(model, "masked_lm_loss", loss)
    return calls


def test_both_are_timed_in_turns(corpus: Corpus, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The median of the rounds that follow the capture; here the graphs are plain calls, and the clock is made up."""
    clock = iter([100, 100, 5, 1, 1, 9, 3, 3, 4, 2, 2, 7])

    def timed(work: Callable[[], None], device: torch.device) -> float:
        work()
        return float(next(clock))

    monkeypatch.setattr(loss_form, "_timed", timed)
    monkeypatch.setattr(loss_form, "Graphs", lambda device: lambda key, function: function())
    bert = make_model(corpus)
    assert loss_form._milliseconds(bert, loss_form._made_up_loss(bert, 12, 70, CPU), CPU) == (3, 3)
    assert asked == [((82, 32), torch.bfloat16, fused) for fused in (False, True)] * 6


@pytest.mark.parametrize(("factor", "agree"), [(1.0, True), (1.01, True), (1.1, False), (float("nan"), False)])
@pytest.mark.parametrize("which", range(7))
def test_a_fused_loss_that_is_wrong_is_not_taken(
    corpus: Corpus,  # noqa: F811
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
    which: int,
    factor: float,
    agree: bool,
) -> None:
    """Whichever it is of the loss and its gradients."""
    bert = make_model(corpus)
    take = loss_form._made_up_loss(bert, 12, 70, CPU)

    def spoilt() -> tuple[torch.Tensor, ...]:
        found = list(take())
        if bert.masked_lm_head.fused:
            found[which] = found[which] * factor
        return tuple(found)

    monkeypatch.setattr(loss_form, "_made_up_loss", lambda *_: spoilt)
    monkeypatch.setattr(loss_form, "can_fuse", lambda *_: True)
    monkeypatch.setattr(loss_form, "_milliseconds", lambda *_: (2.0, 1.0))
    form = choose_loss_form(bert, Sampler(corpus, CONFIG), CONFIG, ALONE, torch.bfloat16, None)
    assert form.is_fused is agree
    assert ("wrong" in form.reason) is not agree


@pytest.mark.gpu
@NEEDS_GPU
def test_both_forms_are_timed_and_train_alike(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    config = dataclasses.replace(CONFIG, device="cuda", gpus=1, precision="bf16", steps=40, batch_size=96)
    said: list[str] = []
    pretrain(make_model(corpus), corpus, config, say=said.append)
    assert any(line.startswith("masked-LM loss") and "ms in chunks" in line for line in said)
    losses = []
    for times in ((1.0, 2.0), (2.0, 1.0)):
        monkeypatch.setattr(loss_form, "_milliseconds", lambda *_, times=times: times)
        run = pretrain(make_model(corpus), corpus, config, say=said.append)
        losses.append([record.mlm_loss for record in run.history.records])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
