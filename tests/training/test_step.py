"""Steps that stay on the device: they equal eager ones, and the loop gets all of their metrics."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from support import rank_processes
from support.command_line import metrics
from support.gpu import on_gpu
from support.graphs import Called, HeldGraph, on_the_cpu
from support.muon import as_on_a_gpu
from support.ranks import on_ranks
from support.small_run import ALONE, CONFIG, CPU, make_model
from torch.utils._python_dispatch import TorchDispatchMode

from bertfast.data.corpus import Corpus
from bertfast.distributed import process_group
from bertfast.distributed.cuda_graph import Graphs
from bertfast.distributed.world import World, describe, describe_graph, make_world
from bertfast.errors import InputError, Stopped
from bertfast.sampling.sampler import Sampler
from bertfast.training import stages
from bertfast.training import step as step_module
from bertfast.training.job import TrainingJob
from bertfast.training.launch import train
from bertfast.training.optimizer import Optimizer, make_optimizer
from bertfast.training.ring import MOST_STEPS
from bertfast.training.run import Run
from bertfast.training.run_directory import RunDirectory
from bertfast.training.schedule import learning_rate
from bertfast.training.setup import Setup, prepare
from bertfast.training.step import BucketedSteps, EagerSteps
from bertfast.training.trainer import Trainer

PLAIN = dataclasses.replace(CONFIG, steps=5, deterministic=False)
GPU = torch.device("cuda", 0)


class Around(Called):
    """Graphs that have `call` call each function."""

    def __init__(self, call):
        self._call = call

    def __call__(self, key, function):
        self._call(function)


def bucketed(corpus, config, dtype=torch.float32, first_step=0, graphs=None, device=CPU, copies=None):
    model = make_model(corpus)
    world = make_world(PLAIN, [CPU], [CPU])._replace(local=[device])
    prepare(model, corpus, config, world)
    alone = make_world(PLAIN, [CPU], [CPU])
    setup = Setup(model, [Sampler(corpus, config, device)], config, alone._replace(local=[device]), dtype)
    setup = setup.with_teachers()
    optimizer = make_optimizer(setup._replace(dtype=copies or dtype))
    steps = BucketedSteps(setup._replace(world=alone), optimizer, first_step, graphs or Called())
    return model, steps, optimizer


def plain(corpus, config, dtype=torch.float32, copies=torch.float32):
    model, world = make_model(corpus), make_world(config, [CPU], [CPU])
    prepare(model, corpus, config, world)
    setup = Setup(model, [Sampler(corpus, config)], config, world, dtype).with_teachers()
    optimizer = make_optimizer(setup._replace(dtype=copies))
    return model, EagerSteps(setup, optimizer)


@pytest.mark.parametrize("objective", ["nsp", "none"])
@pytest.mark.parametrize(("clip", "optimizer"), [(0.05, "adamw"), (0.0, "adamw"), (0.05, "muon")])
@pytest.mark.parametrize(("head_first", "keep_vectors"), [(0.0, 0.0), (0.4, 20.0)])
def test_buckets_change_nothing(corpus, objective, clip, optimizer, head_first, keep_vectors):
    """Losses, norms and, at the end, the weights equal those of eager steps; dropout is on."""
    changes = {"objective": objective, "max_grad_norm": clip, "optimizer": optimizer, "weight_decay": 0.1}
    changes |= {"head_first": head_first, "head_lr": 0.02, "keep_vectors": keep_vectors}
    config = dataclasses.replace(PLAIN, **changes)
    one, filled, _ = bucketed(corpus, config)
    two, whole = plain(corpus, config)
    for step in range(config.steps):
        (ours,), (theirs,) = filled(step, 0.0, wait=True), whole(step, 0.0, wait=True)
        assert ours == pytest.approx(theirs, rel=1e-4)
    for mine, its in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("way", [plain, bucketed])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_head_learns_first(corpus, way, kind):
    """Until it has, all else keeps every bit. If the number of steps then grows, it learns alone again."""
    config = dataclasses.replace(PLAIN, optimizer=kind, weight_decay=0.1, head_first=0.4)
    model, steps, *_ = way(corpus, config)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}

    def moved():
        learn = {name for name, each in model.named_parameters() if each.requires_grad}
        changed = {name for name, each in model.named_parameters() if not torch.equal(each, before[name])}
        assert changed <= learn
        return changed, {name for name in learn if name.startswith("masked_lm_head.")}, learn

    for step in range(2):
        steps(step, 0.0, wait=True)
        changed, head, learn = moved()
        assert changed == head < learn
    steps(2, 0.0, wait=True)
    changed, _, learn = moved()
    assert changed == learn
    frozen = {name: each.detach().clone() for name, each in model.named_parameters()}
    steps.set_length(20)
    steps(3, 0.0, wait=True)
    for name, each in model.named_parameters():
        assert torch.equal(each, frozen[name]) == (name not in head)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_step_asks_the_host_for_nothing(corpus, monkeypatch, dtype, kind):
    """No number is read from a tensor, and none is copied from the host's memory: either would break a capture."""
    as_on_a_gpu(monkeypatch)
    found = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    def watched(function):
        with Watch():
            function()

    config = dataclasses.replace(PLAIN, optimizer=kind, weight_decay=0.1, head_first=0.4, keep_vectors=1.0)
    _, step, optimizer = bucketed(corpus, config, dtype, graphs=Around(watched))
    for number in range(3):
        step(number, 0.0, wait=True)
    assert optimizer.count == 3
    assert ("bmm" in found) == (kind == "muon")
    # On a CPU only, the loss's backward pass checks whether its upstream gradient is 1.
    assert found.count("_local_scalar_dense") <= 3
    assert not {"nonzero", "is_nonzero", "lift_fresh", "masked_select", "equal", "_unique2"} & set(found)


def converted(corpus, copies):
    """The names of the parameters that the third step converts to bfloat16, from an optimizer with such `copies`."""
    found = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket.__name__ == "_to_copy" and kwargs.get("dtype") == torch.bfloat16:
                found.append(args[0].data_ptr())
            return function(*args, **(kwargs or {}))

    def watched(function):
        found.clear()
        with Watch():
            function()

    model, step, _ = bucketed(corpus, PLAIN, torch.bfloat16, graphs=Around(watched), copies=copies)
    for number in range(3):
        step(number, 0.0, wait=True)
    return {name for name, parameter in model.named_parameters() if parameter.data_ptr() in found}


def test_weights_are_not_converted_again(corpus):
    """Except for the heads' products that autograd computes itself."""
    own = {"pooler", "next_sentence_head", "masked_lm_head.transform"}
    assert converted(corpus, torch.bfloat16) == {f"{name}.{kind}" for name in own for kind in ("weight", "bias")}
    assert {"embeddings.word.weight", "layers.0.output.weight"} < converted(corpus, torch.float32)


@pytest.mark.parametrize("way", ["in buckets", "plain", "in shards"])
def test_copies_change_no_bit(corpus, way):
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


def taken_by_a_rank(world, folder, config):
    return taken(Corpus.open(folder), config, world._replace(captured=True))


def taken(corpus, config, world):
    model = make_model(corpus)
    prepare(model, corpus, config, world)
    gradients, buckets = [], []

    class Noting(Optimizer):
        def step(self, found, *rest):
            gradients.append([each.clone() for each in found])
            super().step(found, *rest)

    class NotingBuckets(Called):
        def __call__(self, bucket, function):
            buckets.append(bucket)
            function()

        def capture(self, bucket, function):
            buckets.append(bucket)

    optimizer = Noting(model.parameters(), torch.float32, 0.0)
    setup = Setup(model, [Sampler(corpus, config)], config, world, torch.float32)
    step = BucketedSteps(setup, optimizer, 0, NotingBuckets())
    found = [each for number in range(config.steps) for each in step(number, 0.0, number + 1 == config.steps)]
    return list(map(tuple, found)), gradients, list(model.parameters()), buckets


@pytest.mark.parametrize(("size", "objective"), [(2, "nsp"), (4, "none"), (3, "nsp")])
def test_ranks_add_up_to_one(corpus, tmp_path, size, objective):
    """In losses and gradients of every step, with dropout on; and ranks do not differ in a single bit."""
    config = dataclasses.replace(PLAIN, objective=objective, batch_size=26)
    whole, gradients, _, _ = taken(corpus, config, ALONE._replace(captured=True))
    (found, theirs, weights, buckets), *others = on_ranks(size, tmp_path, taken_by_a_rank, corpus.folder, config)
    torch.testing.assert_close([each[1:4] for each in found], [each[1:4] for each in whole], rtol=1e-5, atol=1e-6)
    for one, of_ranks in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(of_ranks, one, rtol=1e-5, atol=1e-6)
    for its, _, its_weights, its_buckets in others:
        assert (its, its_buckets) == (found, buckets)
        assert all(map(torch.equal, its_weights, weights))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_non_finite_loss_changes_no_weight(corpus, kind):
    model, step, optimizer = bucketed(corpus, dataclasses.replace(PLAIN, optimizer=kind, weight_decay=0.1))
    found = step(0, 0.0, wait=False)
    with torch.no_grad():
        model.masked_lm_head.norm.weight[0] = math.nan
    before = [parameter.clone() for parameter in model.parameters()]
    found += step(1, 0.0, wait=False)
    found += step(2, 1.0, wait=True)
    assert [(each.step, each.is_finite()) for each in found] == [(0, True), (1, False), (2, False)]
    assert found[-1].flags == 1
    for parameter, was in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter.nan_to_num(), was.nan_to_num())
        assert all(moment.isfinite().all() for moment in optimizer.state[parameter].values())
    assert optimizer.count == 1


@pytest.fixture
def called(monkeypatch):
    """The training loop with the steps that a GPU captures, called instead."""

    def make_steps(setup, optimizer, first_step):
        return BucketedSteps(setup, optimizer, first_step, Called())

    monkeypatch.setattr(stages, "make_steps", make_steps)


@pytest.mark.parametrize("short_len", [0, 12])
def test_the_loop_records_all_of_it(said, corpus, tmp_path, called, monkeypatch, short_len):
    """One line per step, although several are read at a time; a resumed run gives the same."""
    monkeypatch.setattr(step_module, "MOST_STEPS", 4)
    config = dataclasses.replace(PLAIN, steps=19, batch_size=4, checkpoint_every=10, short_len=short_len)
    world = make_world(config, [CPU], [CPU])
    whole = Trainer(TrainingJob(make_model(corpus), corpus, config), world, RunDirectory(tmp_path / "whole")).train()
    lines = metrics(tmp_path / "whole")
    assert [line["step"] for line in lines] == list(range(config.steps))
    assert [line["lr"] for line in lines] == [learning_rate(step, config) for step in range(config.steps)]
    assert lines[-1]["mlm_loss"] < lines[0]["mlm_loss"]
    assert all(line["gradient_norm"] > 0 and line["tokens"] > 0 for line in lines)

    last = max((tmp_path / "whole" / "checkpoints").iterdir())
    last.unlink()
    again = Trainer(
        TrainingJob(make_model(corpus), corpus, config), world, RunDirectory(tmp_path / "whole", True)
    ).train()
    assert any("step 10" in line for line in said)
    assert metrics(tmp_path / "whole") == lines
    assert all(map(torch.equal, whole.model.parameters(), again.model.parameters()))


def test_the_loop_names_the_step_of_a_non_finite_loss(corpus, tmp_path, called, monkeypatch):
    taken = BucketedSteps.__call__

    def spoilt(self, step, flag, wait):
        if step == 6:
            with torch.no_grad():
                self._setup.model.masked_lm_head.norm.weight[0] = math.nan
        return taken(self, step, flag, wait)

    monkeypatch.setattr(BucketedSteps, "__call__", spoilt)
    config = dataclasses.replace(PLAIN, steps=200, checkpoint_every=7)
    with pytest.raises(InputError, match="at step 6 the loss is nan"):
        Trainer(
            TrainingJob(make_model(corpus), corpus, config), make_world(config, [CPU], [CPU]), RunDirectory(tmp_path)
        ).train()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6
    assert not list((tmp_path / "checkpoints").glob("*"))


@pytest.mark.parametrize("compiled", [False, True])
def test_one_step_runs_uncaptured_and_the_largest_is_captured_first(corpus, monkeypatch, compiled):
    """Other buckets are captured when they come. With torch.compile, each bucket runs uncaptured once."""
    on_the_cpu(monkeypatch)
    monkeypatch.setattr(step_module, "_PLANNED_TOKENS", 3 * 200 * PLAIN.max_len)
    config = dataclasses.replace(PLAIN, steps=16, batch_size=200, compile=compiled)
    done = []

    class Noting(Graphs):
        def __call__(self, key, function):
            self.key = key
            super().__call__(key, function)

        def capture(self, key, function):
            if key not in self._graphs:
                done.append(("captured", key))
            super().capture(key, function)

        def run(self, function):
            done.append(("run", self.key))
            super().run(function)

    found = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    for graphs in (Called(), Noting(CPU, each_first=compiled)):
        model, step, _ = bucketed(corpus, config, first_step=2, graphs=graphs)
        measured = [step(number, 0.0, wait=True) for number in range(2, config.steps)]
        found.append((measured, list(model.parameters())))
    (plain_steps, weights), (steps_of_graphs, its) = found
    assert steps_of_graphs == plain_steps
    assert all(map(torch.equal, weights, its))

    first, *rest = [step._planned(range(number, number + 1))[0].bucket for number in range(2, config.steps)]
    assert max(rest) not in (first, rest[0])  # or nothing is shown
    if compiled:
        assert [key for what, key in done if what == "run"] == list(dict.fromkeys([first, *rest]))
    else:
        captured = dict.fromkeys([max(rest), *rest])
        assert done == [("run", first), *(("captured", key) for key in captured)]


def test_steps_are_planned_in_bulk(corpus, monkeypatch):
    """In one call, with the same result as one by one."""
    config, calls = dataclasses.replace(PLAIN, steps=20), []
    alone = [bucketed(corpus, config)[1]._planned(range(step, step + 1))[0].bucket for step in range(3)]
    plan = Sampler.plan
    monkeypatch.setattr(Sampler, "plan", lambda self, *range: calls.append(range) or plan(self, *range))
    _, step, _ = bucketed(corpus, config)
    assert [step._bucket(number) for number in range(20)][:3] == alone
    assert len(calls) == 1
    assert step._ahead == {}


def test_no_step_after_the_last_is_planned(corpus):
    planned = []

    class Noting(Called):
        def capture(self, bucket, function):
            planned.append(bucket)

    for length, captures in ((1, 0), (2, 1)):
        _, step, _ = bucketed(corpus, dataclasses.replace(PLAIN, steps=length), graphs=Noting())
        for number in range(length):
            step(number, 0.0, wait=True)
        assert len(planned) == captures


ENDINGS = {"the last step": Run, "no number": InputError, "a signal": Stopped, "an error": ZeroDivisionError}


def gloo_threads():
    return sum("gloo" in each.read_text() for each in Path("/proc/self/task").glob("*/comm"))


def endings(size, captured, corpus, config, folder):
    """A rank's process: saves how each run ended, and what it held at a step and at the end.

    With captured steps that is the number of graphs, when the process group is about to be destroyed; without, of
    gloo's threads, after it was.
    """
    patch = pytest.MonkeyPatch()
    if captured:
        on_the_cpu(patch)
    rank = int(os.environ["RANK"])
    world = World(rank, size, [CPU] * size, [CPU], False, size, captured=captured)
    opened = Corpus.open(corpus)
    steps = BucketedSteps if captured else EagerSteps
    holding = (lambda: len(HeldGraph.holding)) if captured else gloo_threads
    destroy, take, found, held = dist.destroy_process_group, steps.__call__, {}, []

    def noting():
        before = holding()
        destroy()
        held.append(before if captured else holding())

    def eventful(self, step, flag, wait):
        if step == 5:
            held.append(holding())
            if ending == "no number":
                torch.nn.init.constant_(model.masked_lm_head.norm.weight, math.nan)
            if ending == "a signal" and rank == 0:
                signal.raise_signal(signal.SIGTERM)
            if ending == "an error":
                raise ZeroDivisionError
        return take(self, step, flag, wait)

    patch.setattr(dist, "destroy_process_group", noting)
    patch.setattr(steps, "__call__", eventful)
    for ending in ENDINGS:
        model = make_model(opened)
        store = dist.FileStore(str(folder / ending), size)
        patch.setattr(process_group, "peers", lambda store=store: SimpleNamespace(arrive=lambda run: (store, run)))
        held.clear()
        try:
            kind = type(Trainer(TrainingJob(model, opened, config), world, RunDirectory()).train())
        except BaseException as error:  # its traceback is alive here, and was when the group was destroyed
            kind = type(error)
        found[ending] = kind, held.copy()
    torch.save(found, folder / f"{rank}.pt")
    return 0


@pytest.mark.parametrize("captured", [True, False])
def test_no_graph_and_no_thread_outlives_the_process_group(captured, corpus, tmp_path):
    """NCCL's teardown would wait for a graph, and a thread of gloo may abort a process that ends. With every kind of
    ending, on every rank.
    """
    config = dataclasses.replace(PLAIN, steps=12, batch_size=96)
    done = rank_processes.run(2, tmp_path / "said", endings, 2, captured, corpus.folder, config, tmp_path)
    assert done.status == 0, done.err
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert {ending: kind for ending, (kind, _) in found.items()} == ENDINGS
        for before, after in (held for _, held in found.values()):
            assert before > 0
            assert after == 0


def test_a_capture_that_fails_holds_nothing(monkeypatch):
    captured = Graphs._captured
    on_the_cpu(monkeypatch)

    def fails():
        assert HeldGraph.holding
        raise MemoryError

    with pytest.raises(MemoryError) as kept:
        captured(Graphs(GPU), fails)
    assert not HeldGraph.holding
    del kept  # up to here the frames of the failed call are alive


def test_who_captures(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU")

    def line(gpus=1, local=1, **changes):
        config = dataclasses.replace(CONFIG, **changes)
        devices = [torch.device("cuda", i) for i in range(gpus)]
        world = make_world(config, devices, devices[:local])
        return describe(world, torch.float32) + describe_graph(world)

    assert line() == "1 x GPU, one process, fp32, step in a CUDA graph"
    assert line(cuda_graph=False) == "1 x GPU, one process, fp32, no CUDA graph (switched off)"
    assert line(gpus=2) == "2 x GPU, a process each, one all-reduce a step, fp32, step in a CUDA graph"
    assert line(gpus=2, cuda_graph=False) == "2 x GPU, DDP, fp32, no CUDA graph (switched off)"
    assert "no CUDA graph (it holds a GPU's batch in one piece, give --no-deterministic)" in line(deterministic=True)
    assert "no CUDA graph (it holds a GPU's batch in one piece, give --shards 1)" in line(shards=2)
    ending = "DDP in 4 shards, fp32, no CUDA graph (it holds a GPU's batch in one piece, give --shards 2)"
    assert line(2, shards=4).endswith(ending)
    with pytest.raises(InputError, match="--cuda-graph: it holds the step of one GPU, give --parallel ddp"):
        line(gpus=2, local=2, cuda_graph=True)
    with pytest.raises(InputError, match="--cuda-graph: a CPU has none"):
        make_world(dataclasses.replace(CONFIG, cuda_graph=True), [CPU], [CPU])
    assert describe_graph(make_world(CONFIG, [CPU], [CPU])) == ""


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "adamw"}, {"optimizer": "muon"}, {"optimizer": "muon", "keep_vectors": 20.0, "head_first": 0.25}],
)
def test_a_graph_replays_the_step_bit_for_bit(corpus, dtype, changes):
    """Most steps are replays, of several buckets. A sum by atomics in any op would show here."""
    config = dataclasses.replace(PLAIN, steps=40, batch_size=96, weight_decay=0.1, **changes)
    results = []
    for graphs in (Called(), Graphs(GPU)):
        model, step, _ = bucketed(corpus, config, dtype, graphs=graphs, device=GPU)
        found = [each for number in range(config.steps) for each in step(number, 0.0, number + 1 == config.steps)]
        results.append((found, [parameter.detach().cpu() for parameter in model.parameters()]))
    (eager, weights), (replayed, its) = results
    assert [each.step for each in eager] == list(range(config.steps))
    assert replayed == eager
    assert all(map(torch.equal, weights, its))


@on_gpu
def test_a_run_on_a_gpu_is_captured(said, corpus, tmp_path):
    config = dataclasses.replace(CONFIG, device="cuda", gpus=1, steps=2 * MOST_STEPS + 5, checkpoint_every=MOST_STEPS)
    run = train(make_model(corpus), corpus, config, tmp_path)
    assert any("step in a CUDA graph" in line for line in said)
    assert len(run.history.records) == config.steps
    without = dataclasses.replace(config, cuda_graph=False)
    eager = train(make_model(corpus), corpus, without).history.records
    for ours, theirs in zip(run.history.records[:5], eager[:5], strict=True):
        assert ours.mlm_loss == pytest.approx(theirs.mlm_loss, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="not two CUDA devices")
def test_two_gpus_are_captured(said, corpus):
    config = dataclasses.replace(CONFIG, device="cuda", gpus=2, steps=2 * MOST_STEPS + 5)
    two = train(make_model(corpus), corpus, config).history.records
    assert any("one all-reduce a step" in line and "step in a CUDA graph" in line for line in said)
    assert len(two) == config.steps
    one = train(make_model(corpus), corpus, dataclasses.replace(config, gpus=1)).history.records
    for ours, theirs in zip(two[:5], one[:5], strict=True):
        assert ours.mlm_loss == pytest.approx(theirs.mlm_loss, rel=1e-3)


@on_gpu
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
    graphs("b", add)
    assert total.item() == 20
    assert len(calls) == 3  # captured at once
    graphs.close()


@on_gpu
def test_a_capture_alone_changes_nothing():
    total, graphs = torch.zeros((), device=GPU), Graphs(GPU)
    graphs("a", lambda: total.add_(1))
    graphs.capture("b", lambda: total.add_(10))
    torch.cuda.synchronize()
    assert total.item() == 1
    graphs("b", lambda: total.add_(10))
    assert total.item() == 11
    graphs.close()
