"""A step's losses and gradients equal those of the whole batch at once, however it is split among workers."""

import dataclasses
import threading
from pathlib import Path

import pytest
import torch
from support.processes import SERVER
from support.small_run import ALONE, CONFIG, CPU, make_model
from support.torch_threads import torch_threads

from bertfast.data.corpus import Corpus
from bertfast.distributed.threads import one_thread
from bertfast.distributed.tree_sum import TreeSum
from bertfast.distributed.world import World, make_world
from bertfast.errors import InputError
from bertfast.sampling.sampler import Sampler
from bertfast.training import gradients
from bertfast.training.gradients import PlainGradients, ShardedGradients, Shares, clip_factor, gradient_norm
from bertfast.training.launch import train
from bertfast.training.setup import Setup, prepare


@pytest.fixture
def model(corpus):
    model = make_model(corpus)
    prepare(model, corpus, CONFIG, make_world(CONFIG, [CPU], [CPU]))
    return model


def computed(kind, model, corpus, config, world, step=1):
    """The losses, and every gradient."""
    samplers = [Sampler(corpus, config) for _ in world.local]
    setup = Setup(model, samplers, config, world, torch.float32)
    losses, found = kind(setup)(Shares(setup, step))
    return [losses[:-1], *(gradient.clone() for gradient in found)]


def at_once(model, corpus, config, step=1):
    setup = Setup(model, [Sampler(corpus, config)], config, ALONE, torch.float32)
    losses = Shares(setup, step).losses(model, 0, 1)
    return [losses, *torch.autograd.grad(losses.sum(), list(model.parameters()))]


@pytest.mark.parametrize("kind", [ShardedGradients, PlainGradients])
@pytest.mark.parametrize("batch_size", [12, 13])
def test_pieces_add_up_to_the_batch_with_dropout_on(model, corpus, kind, batch_size):
    config = dataclasses.replace(CONFIG, batch_size=batch_size)
    world = World(0, 1, [CPU], [CPU], kind is ShardedGradients, 8)
    torch.testing.assert_close(
        computed(kind, model, corpus, config, world), at_once(model, corpus, config), rtol=1e-4, atol=1e-6
    )


def test_data_parallel_replicas_add_up(model, corpus, monkeypatch):
    """torch's replicate and parallel_apply need GPUs. The model stands in for its replicas: our shares are tested."""
    monkeypatch.setattr(gradients, "replicate", lambda network, devices: [network] * len(devices))
    monkeypatch.setattr(
        gradients,
        "parallel_apply",
        lambda networks, inputs, devices: [n(*i) for n, i in zip(networks, inputs, strict=True)],
    )
    world = World(0, 1, [CPU] * 3, [CPU] * 3, False, 6)
    torch.testing.assert_close(
        computed(PlainGradients, model, corpus, CONFIG, world), at_once(model, corpus, CONFIG), rtol=1e-4, atol=1e-6
    )


def test_threads_change_no_bit(model, corpus):
    world = make_world(dataclasses.replace(CONFIG, deterministic=True), [CPU], [CPU])
    assert world.shards == 8
    results = []
    for threads in (1, 2, 3):
        with torch_threads(threads):
            found = computed(ShardedGradients, model, corpus, CONFIG, world)
            results.append([*found, gradient_norm(found[1:])])
    for other in results[1:]:
        assert all(torch.equal(mine, its) for mine, its in zip(results[0], other, strict=True))


def test_the_tree_has_one_order():
    """The sum of these numbers depends on the order: it is ((a + b) + (c + d)) + ..., whatever arrives first."""
    leaves = torch.randn(16, 1000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 16)[:, None]
    expected = leaves
    while len(expected) > 1:
        expected = expected[0::2] + expected[1::2]
    assert not torch.equal(expected[0], sum(leaves))

    gates = [threading.Event() for _ in leaves]

    def compute(i):  # of every four pieces in work, the last arrives first
        if i % 4 == 3:
            gates[i].set()
        gates[i].wait()
        if i % 4:
            gates[i - 1].set()
        return [leaves[i].clone()]

    assert torch.equal(TreeSum(CPU, 4)(range(16), compute)[0], expected[0])
    assert torch.equal(TreeSum(CPU, 1)(range(16), lambda i: [leaves[i].clone()])[0], expected[0])


def test_shards_compute_with_one_thread_each():
    seen = TreeSum(CPU, 2)(range(4), lambda i: [torch.tensor([torch.get_num_threads()])])
    assert int(seen[0]) == 4
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_an_error_in_a_shard_is_raised():
    def compute(i):
        raise KeyError(i)

    with pytest.raises(KeyError):
        TreeSum(CPU, 2)(range(4), compute)


def test_clipping(model, corpus):
    world = make_world(CONFIG, [CPU], [CPU])
    found = computed(ShardedGradients, model, corpus, CONFIG, world)[1:]
    norm = torch.cat([gradient.flatten().double() for gradient in found]).norm()
    ours = gradient_norm(found)
    assert ours.item() == pytest.approx(norm.item(), rel=1e-6)
    assert clip_factor(ours, norm.item() / 2).item() == pytest.approx(0.5, rel=1e-4)
    assert clip_factor(ours, 2 * norm.item()) == 1
    assert clip_factor(ours, 0) == 1
    parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in found]
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters, 0.1)
    factor = clip_factor(ours, 0.1)
    torch.testing.assert_close([factor * gradient for gradient in found], [each.grad for each in parameters])


def peaks(folder, told):
    """Tells the peaks of a process that trains a small batch, then a large one in 32 shards, then that one at once."""
    torch.set_num_threads(1)
    corpus = Corpus.open(folder)
    for batch_size, shards in ((64, 1), (2048, 32), (2048, 1)):
        config = dataclasses.replace(CONFIG, batch_size=batch_size, shards=shards, steps=1, deterministic=True)
        train(make_model(corpus), corpus, config)
        status = Path("/proc/self/status").read_text()
        told.send(int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1]))


def test_more_shards_take_less_memory(corpus):
    connection, told = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=peaks, args=(corpus.folder, told))
    process.start()
    told.close()
    small, in_shards, at_once = (connection.recv() for _ in range(3))
    process.join()
    assert 4 * (in_shards - small) < at_once - small  # 8 to 9 times, by what else the process allocates meanwhile


def test_which_way_to_sum():
    def chosen(workers=1, local=1, **changes):
        config = dataclasses.replace(CONFIG, **{"batch_size": 512, "max_len": 128, **changes})
        with one_thread():
            world = make_world(config, [CPU] * workers, [CPU] * local)
        return world.deterministic, world.shards

    assert chosen() == (True, 8)
    assert chosen(batch_size=1024) == (True, 8)
    assert chosen(batch_size=511) == (True, 4)
    assert chosen(batch_size=511, workers=4) == (True, 4)
    assert chosen(batch_size=511, workers=8) == (False, 8)
    assert chosen(batch_size=511, workers=8, deterministic=True) == (True, 8)
    assert chosen(batch_size=511, short_len=64) == (True, 2)
    assert chosen(batch_size=64) == (True, 1)  # which costs a thread alone nothing
    assert chosen(batch_size=64, deterministic=True) == (True, 8)
    assert chosen(batch_size=4, deterministic=True) == (True, 4)
    assert chosen(workers=8) == (True, 8)
    assert chosen(workers=3) == (False, 3)
    assert chosen(workers=2, local=2) == (False, 2)
    assert chosen(deterministic=False) == (False, 1)
    assert chosen(deterministic=False, shards=4) == (False, 4)
    assert chosen(shards=16) == (True, 16)
    assert chosen(workers=2, local=2, shards=2) == (False, 2)  # a thread would stand idle (or no power of two)
    with pytest.raises(InputError, match="3 workers can't share 8 shards evenly: start a power of two, 8 at most"):
        chosen(workers=3, deterministic=True)
    with pytest.raises(InputError, match="use --parallel ddp"):
        chosen(workers=2, local=2, deterministic=True)
