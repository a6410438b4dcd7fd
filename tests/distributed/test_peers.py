"""The ranks of a run as threads over a store in memory; test_elastic has them as processes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.messages import listening
from support.torchrun import HANGS
from torch.distributed import HashStore

from bertfast.distributed import peers
from bertfast.distributed.peers import Peers
from bertfast.errors import ProcessLost


def together(*calls):
    """What the calls return, made at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        return [future.result(timeout=HANGS) for future in futures]


@pytest.fixture
def incarnation(monkeypatch):
    """incarnation(store, size) -> the peers of so many ranks over the store."""
    monkeypatch.setattr(peers, "BEAT", 0.1)
    monkeypatch.setattr(peers, "MISSED_AFTER_A_LOSS", 15)
    begun = []

    def meet(store, size):
        found = together(*(lambda rank=rank: Peers(store, store, rank, size) for rank in range(size)))
        begun.extend(found)
        return found

    yield meet
    for each in begun:
        each.end()


def loss_of(each):
    """What it has lost. On a slow machine the missed heartbeats may show only after several calls."""
    while (lost := each.lost()) is None:
        pass
    return lost


def run_of(found, runs=None):
    return together(*(lambda p=p, r=r: p.arrive(r) for p, r in zip(found, runs or "abc", strict=False)))


def test_a_run_has_its_own_part_of_the_store(incarnation):
    """Keys of an earlier incarnation or run must not be taken for a living rank's."""
    job, left = HashStore(), []
    for _ in range(2):
        found = incarnation(job, 3)
        for _ in range(2):
            stores, firsts = zip(*run_of(found), strict=True)
            assert firsts == ("a",) * 3
            assert not stores[0].check(["address"])
            stores[0].set("address", f"dead {len(left)}")
            assert stores[2].get("address") == stores[0].get("address")
            left.append(stores)
    assert len({stores[0].get("address") for stores in left}) == 4


def test_an_earlier_incarnation_does_not_confirm(monkeypatch):
    """Its call is still there when rank 1 arrives before rank 0."""
    job = HashStore()
    for each in together(*(lambda r=r: Peers(job, job, r, 2) for r in range(2))):
        each.end()
    monkeypatch.setattr(peers, "START", 1)
    with pytest.raises(ProcessLost, match="rank 1 waited for 1 s, but not all of the 2 ranks have started"):
        Peers(job, job, 1, 2)


def test_a_lost_rank_is_named(incarnation):
    found = incarnation(HashStore(), 3)
    run_of(found)
    assert found[0].lost() is None
    found[1].end()
    assert [loss_of(found[rank]).split(" (host ")[0] for rank in (0, 2)] == ["lost rank 1"] * 2
    found[2].end()
    while loss_of(found[0]).count("rank") < 2:
        pass


def test_waiting_for_a_dead_rank_raises(incarnation, monkeypatch):
    monkeypatch.setattr(peers, "MISSED_ON_ARRIVAL", 5)
    found = incarnation(HashStore(), 3)
    found[2].end()
    for rank in range(2):
        with pytest.raises(
            ProcessLost, match=rf"rank {rank} waited for rank 2 \(host .*, process \d+\), which no longer"
        ):
            found[rank].arrive("")


def test_rank_0_is_first(incarnation):
    found, order = incarnation(HashStore(), 3), []

    def turn(rank):
        with found[rank].rank_0_first():
            order.append(rank)

    for _ in range(2):
        order.clear()
        others = [threading.Thread(target=turn, args=(rank,)) for rank in (1, 2)]
        for thread in others:
            thread.start()
        assert order == []
        turn(0)
        for thread in others:
            thread.join()
        assert order[0] == 0
        assert sorted(order) == [0, 1, 2]


def test_where_rank_0_fails_the_others_end(incarnation):
    found = incarnation(HashStore(), 2)

    def turn(rank):
        with found[rank].rank_0_first():
            raise ValueError(rank)

    with ThreadPoolExecutor() as pool:
        other = pool.submit(turn, 1)
        with pytest.raises(ValueError, match="0"):
            turn(0)
        with pytest.raises(ProcessLost, match=r"rank 1 waited for rank 0 \(host .*\), which failed: its own message"):
            other.result(timeout=HANGS)


def test_where_rank_0_dies_the_others_end(incarnation, monkeypatch):
    monkeypatch.setattr(peers, "MISSED_ON_ARRIVAL", 5)
    found = incarnation(HashStore(), 2)
    found[0].end()
    with pytest.raises(ProcessLost, match="rank 1 waited for rank 0"), found[1].rank_0_first():
        pass


def test_a_long_wait_names_the_missing_ranks(incarnation, monkeypatch):
    monkeypatch.setattr(peers, "_PATIENCE", 0.2)
    found = incarnation(HashStore(), 3)
    said, told = [], threading.Event()

    def hear(line):
        said.append(line)
        told.set()

    def late(rank):
        told.wait()
        found[rank].arrive("")

    with listening(hear):
        together(lambda: found[0].arrive(""), lambda: late(1), lambda: late(2))
    # The late ranks may log, too, on a slow machine, but neither waits for both.
    [line] = [line for line in said if " and " in line]
    assert line.startswith("waiting for rank 1 (host ")
    assert " and rank 2 (host " in line


def test_a_lost_store(incarnation, monkeypatch):
    class Gone:
        def set(self, key, value):
            raise peers.DistError

    monkeypatch.setattr(peers, "_PATIENCE", 1)
    monkeypatch.setattr(peers, "PrefixStore", lambda name, store: Gone() if store is gone else store)
    gone, job = object(), HashStore()
    mine, other = together(lambda: Peers(job, gone, 0, 2), lambda: Peers(job, job, 1, 2))
    assert mine.lost() == "is cut off from the run's store, which is on rank 0's host"
    with pytest.raises(ProcessLost, match="rank 0 is cut off from the run's store"):
        mine.arrive("")
    other.end()


def test_a_restart_knows_earlier_run_directories(incarnation, monkeypatch, tmp_path):
    job, folder = HashStore(), tmp_path / "mine"
    [first] = incarnation(job, 1)
    assert not first.is_restart(folder)
    first.record_start(folder)
    assert not first.is_restart(folder)  # nor does it, within the incarnation that began it
    assert first.previous_run_directory() is None
    [second] = incarnation(job, 1)
    assert second.is_restart(folder)
    assert not second.is_restart(tmp_path / "other")  # which the first may have refused
    assert second.previous_run_directory() == folder.absolute()
    second.record_start(tmp_path / "next")
    second.record_start(tmp_path / "last")
    [third] = incarnation(job, 1)
    assert all(third.is_restart(tmp_path / name) for name in ("mine", "next", "last"))

    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not incarnation(job, 1)[0].is_restart(tmp_path / "other")
    [third] = incarnation(HashStore(), 1)  # the store went down with its host
    assert not third.is_restart(folder)  # or all were killed before they had met
    folder.mkdir()
    assert third.is_restart(folder)
