"""Which form the masked-LM loss takes, that the run says so, and that a resumed run keeps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.gpu import on_gpu
from support.graphs import Called
from support.small_run import ALONE, CONFIG, CPU, SHARDED, make_model

from bertfast import model
from bertfast.config import TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed import process_group
from bertfast.distributed.world import World, make_world
from bertfast.errors import InputError
from bertfast.ops.fused_mlm_loss import SHARED_BYTES, why_not_fused
from bertfast.ops.masked_lm_loss import masked_lm_loss
from bertfast.sampling.sampler import Sampler
from bertfast.training import loss_form, trainer
from bertfast.training.fingerprint import shared_by_ranks
from bertfast.training.launch import train
from bertfast.training.loss_form import CHUNKED, LossForm, broadcast_form, choose_loss_form
from bertfast.training.setup import Setup

GPU = torch.device("cuda", 0)
FUSED = {"masked-LM loss": "fused"}
Tensors = tuple[torch.Tensor, ...]


def test_what_can_be_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    for room, obstacle in ((SHARED_BYTES, None), (100 << 10, "it needs more shared memory than A10 has")):
        properties = SimpleNamespace(shared_memory_per_multiprocessor=room, name="A10")
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
        assert why_not_fused(128, torch.bfloat16, GPU) == why_not_fused(256, torch.bfloat16, GPU) == obstacle
    assert "up to 256, not 132" in str(why_not_fused(132, torch.bfloat16, GPU))
    assert "up to 256, not 264" in str(why_not_fused(264, torch.bfloat16, GPU))
    assert "give --precision bf16" in str(why_not_fused(128, torch.float32, GPU))
    assert "for GPUs" in str(why_not_fused(128, torch.bfloat16, CPU))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """On a device that can fuse the loss, and is faster if it does: the sizes that were timed."""
    sizes: list[tuple[int, int]] = []

    def made_up(model: object, sequences: int, predictions: int, device: torch.device) -> Callable[[], Tensors]:
        sizes.append((sequences, predictions))
        return lambda: (torch.ones(1),)

    monkeypatch.setattr(loss_form, "why_not_fused", lambda *_: None)
    monkeypatch.setattr(loss_form, "_made_up_loss", made_up)
    monkeypatch.setattr(loss_form, "Graphs", lambda device: Called())
    monkeypatch.setattr(loss_form, "_milliseconds", lambda *_: (2.0, 1.25))
    return sizes


def choose(
    corpus: Corpus,
    world: World = ALONE,
    resumed: dict[str, str] | None = None,
    asked: str = "auto",
) -> LossForm:
    config = dataclasses.replace(CONFIG, mlm_loss=asked)
    return choose_loss_form(
        Setup(make_model(corpus), [Sampler(corpus, config)], config, world, torch.bfloat16), resumed
    )


def test_the_faster_form_is_taken_and_logged(corpus: Corpus, timed: list[tuple[int, int]]) -> None:
    assert choose(corpus) == LossForm("fused", "masked-LM loss fused: 2.000 ms chunked, 1.250 ms fused")
    predictions = int(Sampler(corpus, CONFIG).plan(0, CONFIG.batch_size).num_masked.sum())
    assert choose(corpus, World(0, 4, [CPU] * 4, [CPU], False, 4)).is_fused
    assert timed == [(12, predictions), (3, predictions // 4)]


def test_where_there_is_no_choice(corpus: Corpus, timed: list[tuple[int, int]]) -> None:
    deterministic = make_world(TrainConfig(deterministic=True), [CPU], [CPU])
    for world in (deterministic, World(1, 2, [CPU] * 2, [CPU], False, 2), World(0, 1, [CPU] * 2, [CPU] * 2, False, 2)):
        assert choose(corpus, world) == CHUNKED
    assert timed == []


def test_rank_0_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    told = LossForm("fused", "for a reason"), LossForm("chunked")
    for form in told:
        assert broadcast_form(form, ALONE).is_fused is form.is_fused
    monkeypatch.setattr(process_group.dist, "broadcast", lambda number, rank: number.fill_(1))
    assert broadcast_form(told[1], World(1, 2, [CPU] * 2, [CPU], False, 2)).is_fused
    run = {"masked-LM loss": "chunked", "--lr": 1.0}
    order = "the fastest over 1 devices, in 1 pieces"
    assert shared_by_ranks(run, ALONE, CONFIG) == {"--lr": 1.0, "order of sums": order, "--device": "cpu"}


def test_nothing_is_timed_on_a_cpu(corpus: Corpus) -> None:
    assert choose(corpus) == CHUNKED


def test_a_resumed_run_keeps_its_form(
    said,
    corpus: Corpus,
    timed: list[tuple[int, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever is faster now; and every loss of the run is computed in that form."""
    asked: list[bool] = []

    def loss(*arguments: object) -> torch.Tensor:
        asked.append(bool(arguments[-1]))
        return masked_lm_loss(*arguments[:-1])  # type: ignore[arg-type]

    plain = trainer.identity
    monkeypatch.setattr(model, "masked_lm_loss", loss)
    # As on a GPU.
    monkeypatch.setattr(
        trainer,
        "identity",
        lambda *given: {**plain(*given), "computed in plain torch": "no op", "masked-LM loss": given[2]},
    )
    config = dataclasses.replace(CONFIG, deterministic=False, checkpoint_every=2)
    run = train(make_model(corpus), corpus, config, tmp_path)
    assert said[1] == "masked-LM loss fused: 2.000 ms chunked, 1.250 ms fused"
    assert asked == [True] * config.steps
    assert not run.model.masked_lm_head.fused

    (tmp_path / "checkpoints" / "step-00000003.safetensors").unlink()
    monkeypatch.setattr(loss_form, "_milliseconds", lambda *_: (1.0, 2.0))
    said.clear()
    train(make_model(corpus), corpus, config, tmp_path, resume=True)
    assert "masked-LM loss fused, as before" in said
    assert asked == [True] * (config.steps + 1)

    without = dataclasses.replace(config, mlm_loss="chunked")
    with pytest.raises(InputError, match="masked-LM loss: fused -> chunked"):
        train(make_model(corpus), corpus, without, tmp_path, resume=True)
    monkeypatch.setattr(loss_form, "why_not_fused", lambda *_: "it can't")
    with pytest.raises(InputError, match="masked-LM loss: fused -> chunked"):
        train(make_model(corpus), corpus, config, tmp_path, resume=True)


def test_an_older_checkpoints_word_is_known(
    said: list[str],
    corpus: Corpus,
    timed: list[tuple[int, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It said "in chunks"."""
    plain, word = trainer.identity, "in chunks"
    on_gpu = {"computed in plain torch": "no op"}
    monkeypatch.setattr(
        trainer, "identity", lambda *given: {**plain(*given), **on_gpu, "masked-LM loss": word or given[2]}
    )
    config = dataclasses.replace(CONFIG, deterministic=False, checkpoint_every=2, mlm_loss="chunked")
    train(make_model(corpus), corpus, config, tmp_path)
    (tmp_path / "checkpoints" / "step-00000003.safetensors").unlink()
    word = ""
    auto = dataclasses.replace(config, mlm_loss="auto")
    train(make_model(corpus), corpus, auto, tmp_path, resume=True)
    assert "masked-LM loss chunked, as before" in said
    assert timed == []


def test_it_can_be_asked_for(corpus: Corpus, timed: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunked: nothing is tried. Fused: it is tried but not timed, and an error says why it is not available."""
    assert choose(corpus, asked="chunked") == choose(corpus, asked="chunked", resumed=FUSED) == CHUNKED
    assert timed == []
    monkeypatch.setattr(loss_form, "_milliseconds", None)
    assert choose(corpus, asked="fused") == LossForm("fused", "masked-LM loss fused, as asked")
    assert len(timed) == 1
    assert choose(corpus, asked="fused", resumed=FUSED).is_fused
    assert choose(corpus, asked="fused", resumed={"masked-LM loss": "chunked"}).is_fused
    for world, why in (
        (World(0, 1, [CPU] * 2, [CPU] * 2, False, 2), "DataParallel's replicas take chunks, give --parallel ddp"),
        (SHARDED, "its bits are those of one kind of GPU, give --no-deterministic"),
    ):
        with pytest.raises(InputError, match=f"^--mlm-loss fused: {why}"):
            choose(corpus, world, asked="fused")
    monkeypatch.setattr(loss_form, "why_not_fused", why_not_fused)
    with pytest.raises(InputError, match=r"^--mlm-loss fused: it is a kernel for GPUs"):
        choose(corpus, asked="fused")
    with pytest.raises(InputError, match=r"^--mlm-loss must be one of auto, chunked, fused, not 'in chunks'$"):
        choose(corpus, asked="in chunks")


@pytest.mark.parametrize("when", ["at once", "captured"])
def test_a_fused_loss_that_fails_is_not_taken(
    corpus: Corpus,
    timed: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    """Chunks are used, with a warning. If the error persists in the process, the run ends and says what to do."""
    bert = make_model(corpus)

    def fails(*_: object) -> Tensors:
        if when == "captured" or bert.masked_lm_head.fused:
            raise RuntimeError("fused_mlm_loss: too many resources requested for launch\nmore")
        return (torch.ones(1),)

    def chosen(asked: str) -> LossForm:
        config = dataclasses.replace(CONFIG, mlm_loss=asked)
        return choose_loss_form(Setup(bert, [Sampler(corpus, config)], config, ALONE, torch.bfloat16), None)

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    if when == "captured":
        monkeypatch.setattr(loss_form, "_milliseconds", fails)
    else:
        monkeypatch.setattr(loss_form, "_made_up_loss", lambda *_: fails)
        with pytest.raises(InputError, match=r"^--mlm-loss fused: it fails here .*too many resources"):
            chosen("fused")
    failure = "fused_mlm_loss: too many resources requested for launch"
    warning = f"masked-LM loss chunked, as the fused one fails here ({failure}): please report it"
    assert chosen("auto") == LossForm("chunked", warning, warns=True)
    assert not bert.masked_lm_head.fused

    def poisoned(device: torch.device) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700)

    monkeypatch.setattr(torch.cuda, "synchronize", poisoned)
    with pytest.raises(InputError, match=r"^the fused masked-LM loss left cpu unusable .* --mlm-loss chunked, and"):
        chosen("auto")


def test_an_error_of_the_chunked_loss_is_not_blamed_on_the_fused_one(
    corpus: Corpus,
    timed: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> Tensors:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(loss_form, "_made_up_loss", lambda *_: fails)
    with pytest.raises(RuntimeError, match="shapes differ"):
        choose(corpus)


def test_everything_is_computed_on_the_capture_stream(
    corpus: Corpus,
    timed: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Autograd's nodes of leaves belong to the stream that they were first used in."""
    within, seen = [False], []

    class OfTheStream(Called):
        def run(self, function: Callable[[], object]) -> None:
            within[0] = True
            function()
            within[0] = False

    def take() -> Tensors:
        seen.append(within[0])
        return (torch.ones(1),)

    monkeypatch.setattr(loss_form, "_made_up_loss", lambda *_: take)
    monkeypatch.setattr(loss_form, "Graphs", lambda device: OfTheStream())
    assert choose(corpus).is_fused
    assert seen == [True, True]


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


def test_both_are_timed_in_turns(corpus: Corpus, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The median of the rounds that follow the capture; here the graphs are plain calls, and the clock is made up."""
    clock = iter([100, 100, 5, 1, 1, 9, 3, 3, 4, 2, 2, 7])

    def timed(work: Callable[[], None], device: torch.device) -> float:
        work()
        return float(next(clock))

    monkeypatch.setattr(loss_form, "_timed", timed)
    bert = make_model(corpus)
    assert loss_form._milliseconds(bert, loss_form._made_up_loss(bert, 12, 70, CPU), CPU, Called()) == (3, 3)
    assert asked == [((82, 32), torch.bfloat16, fused) for fused in (False, True)] * 6


@pytest.mark.parametrize(("factor", "agree"), [(1.0, True), (1.01, True), (1.1, False), (float("nan"), False)])
@pytest.mark.parametrize("which", range(7))
def test_a_fused_loss_that_is_wrong_is_not_taken(
    corpus: Corpus,
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
    monkeypatch.setattr(loss_form, "why_not_fused", lambda *_: None)
    monkeypatch.setattr(loss_form, "Graphs", lambda device: Called())
    monkeypatch.setattr(loss_form, "_milliseconds", lambda *_: (2.0, 1.0))
    form = choose_loss_form(Setup(bert, [Sampler(corpus, CONFIG)], CONFIG, ALONE, torch.bfloat16), None)
    assert form.is_fused is agree
    assert ("wrong" in form.reason) is not agree
    if not agree:
        config = dataclasses.replace(CONFIG, mlm_loss="fused")
        with pytest.raises(InputError, match="--mlm-loss fused: it is wrong here"):
            choose_loss_form(Setup(bert, [Sampler(corpus, config)], config, ALONE, torch.bfloat16), None)


@on_gpu
def test_both_forms_are_timed_and_train_alike(said: list[str], corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(CONFIG, device="cuda", gpus=1, precision="bf16", steps=40, batch_size=96)
    train(make_model(corpus), corpus, config)
    assert any(line.startswith("masked-LM loss") and "ms chunked" in line for line in said)
    losses = []
    for times in ((1.0, 2.0), (2.0, 1.0)):
        monkeypatch.setattr(loss_form, "_milliseconds", lambda *_, times=times: times)
        run = train(make_model(corpus), corpus, config)
        losses.append([record.mlm_loss for record in run.history.records])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
