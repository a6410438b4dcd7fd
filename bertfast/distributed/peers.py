"""The processes of a run: a rendezvous that excludes earlier incarnations, and a heartbeat for each process.

torchrun's store outlives the processes: after one dies and torchrun restarts them all, the keys of the dead are still
there, and gloo would connect to them. So the ranks first agree on a name that only this incarnation knows, and keep all
their keys under it. A thread in each process then sends a heartbeat, so that a waiting rank knows whether another can
still arrive, and a rank that loses a connection can name the rank it lost. torchrun's own reports can't: they name a
process on its own host only, and a rank on another host learns no more than the address of the broken connection.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import functools
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from torch.distributed import DistError, PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from bertfast.errors import ProcessLost
from bertfast.torchrun import check_meeting_place, restarts

logger = logging.getLogger(__name__)

START = 300  # seconds for all ranks to start, once torchrun has launched them
BEAT = 0.25  # seconds between heartbeats

# Missed heartbeats after which a rank counts as dead: for a rank that has just lost a connection; and for one that
# waits while the other may be building a corpus, where a library can block all threads of its process.
MISSED_AFTER_A_LOSS = 6
MISSED_ON_ARRIVAL = 240

_PATIENCE = 60  # seconds until a waiting rank logs which ranks it waits for, or gives up on a store that doesn't answer
_LOOK = 0.1  # seconds between polls of the store

_CALL, _FOLDERS = "bertfast/call", "bertfast/folders"  # keys of the job's store that all incarnations share
_CUT_OFF = "is cut off from the run's store, which is on rank 0's host"


class Peers:
    """The ranks of one incarnation, with a part of their own in the job's store, which outlives them."""

    def __init__(self, job: Store, threads_job: Store, rank: int, size: int) -> None:
        """Waits for all ranks. `job` and `threads_job` are two connections to the job's store.

        Raises ProcessLost if not all ranks start in time.
        """
        self._job, self._rank = job, rank
        self._store_is_new = not job.check([_CALL])
        self._folders = json.loads(job.get(_FOLDERS)) if job.check([_FOLDERS]) else []
        self._started: list[str] = []  # run directories of this incarnation
        name, self._names = _meet(job, rank, size)
        self._store = PrefixStore(name, job)
        self._arrivals = [0] * size  # by rank, the number of runs it has arrived at
        self._missed = [0] * size
        self._rounds = 0
        self._stalled = 0  # seconds, roughly, since `_rounds` changed
        self._turns = 0
        self._updated = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, args=(PrefixStore(name, threads_job),), daemon=True)
        self._thread.start()
        atexit.register(self.end)

    def _live(self, store: Store) -> None:
        """Sends this rank's heartbeat and watches the others', until `end`."""
        keys = [f"beat/{rank}" for rank in range(len(self._names))]
        before = [b""] * len(keys)
        while not self._ended.wait(BEAT):
            try:
                store.set(keys[self._rank], json.dumps([self._rounds, self._arrivals[self._rank]]))
                beats = store.multi_get(keys)
            except DistError:  # the store is gone: `_rounds` no longer changes
                return
            with self._updated:
                self._missed = [
                    missed + 1 if beat == last else 0
                    for missed, beat, last in zip(self._missed, beats, before, strict=True)
                ]
                self._arrivals = [max(n, json.loads(beat)[1]) for n, beat in zip(self._arrivals, beats, strict=True)]
                self._rounds += 1
                self._updated.notify_all()
            before = beats

    def end(self) -> None:
        """Stops the heartbeat."""
        self._ended.set()
        self._thread.join(timeout=2)

    def arrive(self, run: str) -> tuple[Store, str]:
        """Waits until all ranks arrive at their next run. Returns the run's own store, and rank 0's `run`.

        Raises ProcessLost if a rank dies first.
        """
        number = self._arrivals[self._rank] + 1
        store = PrefixStore(f"run/{number}", self._store)
        if self._rank == 0:
            store.set("run", run)
        waits = 0
        with self._updated:
            self._arrivals[self._rank] = number
            while min(self._arrivals) < number:
                self._wait_for_round()
                waits += 1
                missing = " and ".join(n for n, a in zip(self._names, self._arrivals, strict=True) if a < number)
                if missing and waits == int(_PATIENCE / BEAT):
                    logger.info("waiting for %s", missing)
        return store, store.get("run").decode()

    def _wait_for_round(self) -> None:
        """Waits, with `_updated` held, for the next round. Raises ProcessLost if a rank or the store is dead."""
        rounds = self._rounds
        self._updated.wait(1)
        self._stalled = self._stalled + 1 if self._rounds == rounds else 0
        if dead := self._silent(MISSED_ON_ARRIVAL):
            raise ProcessLost(f"rank {self._rank} waited for {dead}, which no longer responds")
        if self._stalled == _PATIENCE:
            raise ProcessLost(f"rank {self._rank} {_CUT_OFF}")

    @contextlib.contextmanager
    def rank_0_first(self) -> Iterator[None]:
        """Runs the block in rank 0, then in the other ranks, however long rank 0 takes.

        Raises ProcessLost in the others if rank 0 dies or raises an exception in the block.
        """
        self._turns += 1
        key = f"turn/{self._turns}"
        if self._rank > 0:
            self._await_turn(key)
            yield
            return
        try:
            yield
        except BaseException:
            with contextlib.suppress(DistError):
                self._store.set(key, "failed")
            raise
        self._store.set(key, "done")

    def _await_turn(self, key: str) -> None:
        try:
            with self._updated:
                while not self._store.check([key]):
                    self._wait_for_round()
            failed = self._store.get(key) == b"failed"
        except DistError:
            raise ProcessLost(f"rank {self._rank} {_CUT_OFF}") from None
        if failed:
            raise ProcessLost(f"rank {self._rank} waited for {self._names[0]}, which failed: its own message says why")

    def lost(self) -> str | None:
        """After a broken connection: which rank was lost, as the end of a message; None if unknown."""
        rounds = self._rounds
        time.sleep((MISSED_AFTER_A_LOSS + 2) * BEAT)
        if dead := self._silent(MISSED_AFTER_A_LOSS):
            return f"lost {dead}"
        return None if self._rounds > rounds else _CUT_OFF

    def _silent(self, rounds: int) -> str:
        """The names of the ranks that missed at least `rounds` heartbeats."""
        return " and ".join(name for name, missed in zip(self._names, self._missed, strict=True) if missed >= rounds)

    def previous_run_directory(self) -> Path | None:
        """The run directory of an earlier incarnation of this job, if known."""
        return Path(self._folders[-1]) if self._folders else None

    def is_restart(self, folder: Path) -> bool:
        """Whether an earlier incarnation of this job started the run in `folder`.

        If the store is new, because the old one was lost with its host, torchrun's restart count decides.
        """
        if self._store_is_new:
            return restarts() > 0 and folder.is_dir()
        return str(folder.absolute()) in self._folders

    def record_start(self, folder: Path) -> None:
        """Records for later incarnations that the run in `folder` has started."""
        self._started.append(str(folder.absolute()))
        self._job.set(_FOLDERS, json.dumps([*self._folders, *self._started]))


def _meet(job: Store, rank: int, size: int) -> tuple[str, list[str]]:
    """This incarnation's name in the store, and its ranks' names for messages.

    Rank 0 posts a call, every rank answers, and rank 0 confirms the answers it has. A call from an earlier incarnation
    never confirms an answer from this one.
    """
    me = [uuid.uuid4().hex, f"rank {rank} (host {socket.gethostname()}, process {os.getpid()})"]
    own_call = f"bertfast/{me[0]}"
    for _ in range(int(START / _LOOK)):
        if rank == 0:
            job.set(_CALL, own_call)
        if job.check([_CALL]):
            call = job.get(_CALL).decode()
            job.set(f"{call}/beat/{rank}", json.dumps([-1, 0]))
            job.set(f"{call}/answer/{rank}", json.dumps(me))
            answers = [f"{call}/answer/{other}" for other in range(size)]
            if rank == 0 and job.check(answers):
                job.set(f"{call}/met", json.dumps([json.loads(each) for each in job.multi_get(answers)]))
            if job.check([f"{call}/met"]) and me in (met := json.loads(job.get(f"{call}/met"))):
                return call, [name for _, name in met]
        time.sleep(_LOOK)
    raise ProcessLost(f"rank {rank} waited for {START} s, but not all of the {size} ranks have started")


@functools.cache
def peers() -> Peers:
    """This process's peers, from torchrun's environment. The first call waits for all of them."""
    check_meeting_place()
    stores = [next(rendezvous("env://", timeout=datetime.timedelta(seconds=START))) for _ in range(2)]
    (job, rank, size), (threads_job, _, _) = stores
    return Peers(job, threads_job, rank, size)
