"""Steps that stay on the device: those of the plain way, and what the loop learns of them."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
import torch.distributed as dist
from processes import SERVER
from test_trainer import CONFIG, CPU, corpus, make_model  # noqa: F401 (corpus is a fixture)
from torch.utils._python_dispatch import TorchDispatchMode

from bertfast.data.corpus import Corpus
from bertfast.distributed.cuda_graph import Graphs
from bertfast.distributed.world import World, describe, make_world
from bertfast.errors import InputError
from bertfast.sampling.sampler import Sampler
from bertfast.training import ring, trainer
from bertfast.training.adam import Adam
from bertfast.training.gradients import make_gradients
from bertfast.training.launch import pretrain
from bertfast.training.ring import MOST_STEPS
from bertfast.training.schedule import learning_rate
from bertfast.training.step import BucketedSteps, EagerSteps
from bertfast.training.trainer import prepare, train

PLAIN = dataclasses.replace(CONFIG, steps=5, deterministic=False)
GPU = torch.device("cuda", 0)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def as_it_is(bucket, function):
    function()


def bucketed(corpus, config, dtype=torch.float32, first_step=0, run=as_it_is, device=CPU, copies=None):  # noqa: F811
    model = make_model(corpus)
    world = make_world(PLAIN, [CPU], [CPU])._replace(local=[device])
    prepare(model, corpus, config, world)
    optimizer = Adam(model.parameters(), copies or dtype)
    sampler = Sampler(corpus, config, device)
    return (
        model,
        BucketedSteps(model, sampler, optimizer, config, make_world(PLAIN, [CPU], [CPU]), dtype, first_step, run),
        optimizer,
    )


def plain(corpus, config, dtype=torch.float32, copies=torch.float32):  # noqa: F811
    model, world = make_model(corpus), make_world(config, [CPU], [CPU])
    prepare(model, corpus, config, world)
    gradients = make_gradients(model, [Sampler(corpus, config)], config, world, dtype)
    return model, EagerSteps(gradients, Adam(model.parameters(), copies), config, world.deterministic)


@pytest.mark.parametrize("objective", ["nsp", "none"])
@pytest.mark.parametrize("clip", [0.05, 0.0])
def test_buckets_change_nothing(corpus, objective, clip):  # noqa: F811
    """Losses, norms and, at the end, the weights of the plain way; dropout on."""
    config = dataclasses.replace(PLAIN, objective=objective, max_grad_norm=clip)
    one, filled, _ = bucketed(corpus, config)
    two, whole = plain(corpus, config)
    for step in range(config.steps):
        (ours,), (theirs,) = filled(step, 0.0, wait=True), whole(step, 0.0, wait=True)
        assert ours == pytest.approx(theirs, rel=1e-4)
    for mine, its in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_asks_the_host_for_nothing(corpus, dtype):  # noqa: F811
    """No number is read from a tensor and none is made of the host's memory: either would end a capture."""
    found = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    def watched(bucket, function):
        with Watch():
            function()

    _, step, optimizer = bucketed(corpus, PLAIN, dtype, run=watched)
    for number in range(3):
        step(number, 0.0, wait=True)
    assert optimizer.state[optimizer.parameters[0]]["step"] == 3
    # The loss's backward pass looks whether its upstream gradient is 1, on a CPU alone.
    assert found.count("_local_scalar_dense") <= 3
    assert not {"nonzero", "is_nonzero", "lift_fresh", "masked_select", "equal", "_unique2"} & set(found)


def converted(corpus, copies):  # noqa: F811
    """The names of the parameters that the third step converts to bfloat16, from an optimizer with such `copies`."""
    found = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket.__name__ == "_to_copy" and kwargs.get("dtype") == torch.bfloat16:
                found.append(args[0].data_ptr())
            return function(*args, **(kwargs or {}))

    def watched(bucket, function):
        found.clear()
        with Watch():
            function()

    model, step, _ = bucketed(corpus, PLAIN, torch.bfloat16, run=watched, copies=copies)
    for number in range(3):
        step(number, 0.0, wait=True)
    return {name for name, parameter in model.named_parameters() if parameter.data_ptr() in found}


def test_weights_are_not_converted_again(corpus):  # noqa: F811
    """But for those of the heads' products that are autograd's own."""
    own = {"pooler", "next_sentence_head", "masked_lm_head.transform"}
    assert converted(corpus, torch.bfloat16) == {f"{name}.{kind}" for name in own for kind in ("weight", "bias")}
    assert {"embeddings.word.weight", "layers.0.output.weight"} < converted(corpus, torch.float32)


@pytest.mark.parametrize("way", ["in buckets", "plain", "in shards"])
def test_copies_change_no_bit(corpus, way):  # noqa: F811
    results = []
    for copies in (torch.bfloat16, torch.float32):
        if way == "in buckets":
            model, step, _ = bucketed(corpus, PLAIN, torch.bfloat16, copies=copies)
        else:
            config = dataclasses.replace(PLAIN, deterministic=way == "in shards")
            model, step = plain(corpus, config, torch.bfloat16, copies)
        results.append(([step(number, 0.0, wait=True) for number in range(4)], model))
    (ours, one), (theirs, other) = results
    assert ours == theirs
    assert all(map(torch.equal, one.parameters(), other.parameters()))


def one_of(rank, size, corpus, config, folder):  # noqa: F811
    """A rank's steps, in a process of its own; it leaves what it measured, its gradients and its weights."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    torch.set_num_threads(1)
    world = World(rank, size, [CPU] * size, [CPU], False, size, captured=True)
    torch.save(taken(Corpus.open(corpus), config, world), folder / f"{rank}.pt")
    dist.destroy_process_group()


def taken(corpus, config, world):  # noqa: F811
    model = make_model(corpus)
    prepare(model, corpus, config, world)
    gradients, buckets = [], set()

    class Noting(Adam):
        def step(self, found, *rest):
            gradients.append([each.clone() for each in found])
            super().step(found, *rest)

    def noted(bucket, function):
        buckets.add(bucket)
        function()

    optimizer = Noting(model.parameters(), torch.float32)
    step = BucketedSteps(model, Sampler(corpus, config), optimizer, config, world, torch.float32, 0, noted)
    found = [each for number in range(config.steps) for each in step(number, 0.0, number + 1 == config.steps)]
    return list(map(tuple, found)), gradients, list(model.parameters()), buckets


@pytest.mark.parametrize(("size", "objective"), [(2, "nsp"), (4, "none"), (3, "nsp")])
def test_ranks_add_up_to_one(corpus, tmp_path, size, objective):  # noqa: F811
    """Losses and gradients of every step, dropout on; and among ranks not a bit differs."""
    config = dataclasses.replace(PLAIN, objective=objective, batch_size=26)
    processes = [SERVER.Process(target=one_of, args=(i, size, corpus.folder, config, tmp_path)) for i in range(size)]
    for process in processes:
        process.start()
    whole, gradients, _, _ = taken(corpus, config, World(0, 1, [CPU], [CPU], False, 1, captured=True))
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    (found, theirs, weights, buckets), *others = [
        torch.load(tmp_path / f"{i}.pt", weights_only=False) for i in range(size)
    ]
    torch.testing.assert_close([each[1:4] for each in found], [each[1:4] for each in whole], rtol=1e-5, atol=1e-6)
    for one, of_ranks in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(of_ranks, one, rtol=1e-5, atol=1e-6)
    for its, _, its_weights, its_buckets in others:
        assert (its, its_buckets) == (found, buckets)
        assert all(map(torch.equal, its_weights, weights))


def test_what_is_no_number_reaches_no_weight(corpus):  # noqa: F811
    model, step, optimizer = bucketed(corpus, PLAIN)
    found = step(0, 0.0, wait=False)
    with torch.no_grad():
        model.masked_lm_head.norm.weight[0] = math.nan
    before = [parameter.clone() for parameter in model.parameters()]
    found += step(1, 0.0, wait=False)
    found += step(2, 1.0, wait=True)
    assert [(each.step, each.is_number()) for each in found] == [(0, True), (1, False), (2, False)]
    assert found[-1].flags == 1
    for parameter, was in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter.nan_to_num(), was.nan_to_num())
        assert optimizer.state[parameter]["step"] == 1
        assert optimizer.state[parameter]["exp_avg"].isfinite().all()


@pytest.fixture
def on_the_cpu(monkeypatch):
    """The loop with the captured way's steps, called one by one."""

    def make_steps(model, samplers, optimizer, config, world, dtype, first_step):
        return BucketedSteps(model, samplers[0], optimizer, config, world, dtype, first_step, as_it_is)

    monkeypatch.setattr(trainer, "make_steps", make_steps)


def test_the_loop_tells_all_of_it(said, corpus, tmp_path, on_the_cpu, monkeypatch):  # noqa: F811
    """A line a step, though several are read at a time; resumed, the same run."""
    monkeypatch.setattr(ring, "MOST_STEPS", 4)
    config = dataclasses.replace(PLAIN, steps=19, batch_size=4, checkpoint_every=10)
    world = make_world(config, [CPU], [CPU])
    whole = train(make_model(corpus), corpus, config, world, tmp_path / "whole", False)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(config.steps))
    assert [line["lr"] for line in lines] == [learning_rate(step, config) for step in range(config.steps)]
    assert lines[-1]["mlm_loss"] < lines[0]["mlm_loss"]

    last = max((tmp_path / "whole" / "checkpoints").iterdir())
    last.unlink()
    again = train(make_model(corpus), corpus, config, world, tmp_path / "whole", True)
    assert any("step 10" in line for line in said)
    assert [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()] == lines
    assert all(map(torch.equal, whole.model.parameters(), again.model.parameters()))


def test_the_loop_names_the_step_of_a_loss_that_is_no_number(corpus, tmp_path, on_the_cpu, monkeypatch):  # noqa: F811
    taken = BucketedSteps.__call__

    def spoilt(self, step, flag, wait):
        if step == 6:
            with torch.no_grad():
                self._model.masked_lm_head.norm.weight[0] = math.nan
        return taken(self, step, flag, wait)

    monkeypatch.setattr(BucketedSteps, "__call__", spoilt)
    config = dataclasses.replace(PLAIN, steps=200, checkpoint_every=7)
    with pytest.raises(InputError, match="at step 6 the loss is nan"):
        train(make_model(corpus), corpus, config, make_world(config, [CPU], [CPU]), tmp_path, False)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_who_captures(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU")

    def line(gpus=1, local=1, **changes):
        config = dataclasses.replace(CONFIG, **changes)
        devices = [torch.device("cuda", i) for i in range(gpus)]
        return describe(make_world(config, devices, devices[:local]), torch.float32)

    assert line() == "1 x GPU, one process, step in a CUDA graph, fp32"
    assert line(cuda_graph=False) == "1 x GPU, one process, no CUDA graph (not wanted), fp32"
    assert line(gpus=2) == "2 x GPU, a process each, one all-reduce a step, step in a CUDA graph, fp32"
    assert line(gpus=2, cuda_graph=False) == "2 x GPU, DDP, no CUDA graph (not wanted), fp32"
    assert "no CUDA graph (it holds a GPU's batch in one piece, give --no-deterministic)" in line(deterministic=True)
    assert "no CUDA graph (it holds a GPU's batch in one piece, give --shards 1)" in line(shards=2)
    assert "DDP in 4 shards, no CUDA graph (it holds a GPU's batch in one piece, give --shards 2)" in line(2, shards=4)
    with pytest.raises(InputError, match="--cuda-graph: it holds the step of one GPU, give --parallel ddp"):
        line(gpus=2, local=2, cuda_graph=True)
    with pytest.raises(InputError, match="--cuda-graph: a CPU has none"):
        make_world(dataclasses.replace(CONFIG, cuda_graph=True), [CPU], [CPU])
    assert "graph" not in describe(make_world(CONFIG, [CPU], [CPU]), torch.float32)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_graph_replays_the_step_bit_for_bit(corpus, dtype):  # noqa: F811
    """Long enough that most steps are replayed, in several buckets. A sum by atomics in any op would show here."""
    config = dataclasses.replace(PLAIN, steps=40, batch_size=96)
    results = []
    for run in (as_it_is, Graphs(GPU)):
        model, step, _ = bucketed(corpus, config, dtype, run=run, device=GPU)
        found = [each for number in range(config.steps) for each in step(number, 0.0, number + 1 == config.steps)]
        results.append((found, [parameter.detach().cpu() for parameter in model.parameters()]))
    (eager, weights), (replayed, its) = results
    assert [each.step for each in eager] == list(range(config.steps))
    assert replayed == eager
    assert all(map(torch.equal, weights, its))


@pytest.mark.gpu
@needs_gpu
def test_a_run_on_a_gpu_is_captured(said, corpus, tmp_path):  # noqa: F811
    config = dataclasses.replace(CONFIG, device="cuda", gpus=1, steps=2 * MOST_STEPS + 5, checkpoint_every=MOST_STEPS)
    run = pretrain(make_model(corpus), corpus, config, tmp_path)
    assert any("step in a CUDA graph" in line for line in said)
    assert len(run.history.records) == config.steps
    without = dataclasses.replace(config, cuda_graph=False)
    eager = pretrain(make_model(corpus), corpus, without).history.records
    for ours, theirs in zip(run.history.records[:5], eager[:5], strict=True):
        assert ours.mlm_loss == pytest.approx(theirs.mlm_loss, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="not two CUDA devices")
def test_two_gpus_are_captured(said, corpus):  # noqa: F811
    config = dataclasses.replace(CONFIG, device="cuda", gpus=2, steps=2 * MOST_STEPS + 5)
    two = pretrain(make_model(corpus), corpus, config).history.records
    assert any("one all-reduce a step, step in a CUDA graph" in line for line in said)
    assert len(two) == config.steps
    one = pretrain(make_model(corpus), corpus, dataclasses.replace(config, gpus=1)).history.records
    for ours, theirs in zip(two[:5], one[:5], strict=True):
        assert ours.mlm_loss == pytest.approx(theirs.mlm_loss, rel=1e-3)


@pytest.mark.gpu
@needs_gpu
def test_graphs_read_their_input_anew():
    total, each, calls = torch.zeros((), device=GPU), torch.zeros((), device=GPU), []

    def add():
        calls.append(None)
        total.add_(each)

    graphs = Graphs(GPU)
    for number in range(6):
        each.fill_(number)
        graphs("a", add)
    assert total.item() == 15
    assert len(calls) == 2  # as it is, and captured
