"""What several test files share."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

# Two threads, so that every test is about threads, on any machine; which wait without spinning, for other workers of
# pytest-xdist want the cores.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# What tests start (cmake, python) is this environment's, whether or not it is activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
# A shell has what it runs in the background ignore Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import HealthCheck, settings
from support import saved_model as saved
from support.messages import listening
from support.pictures import note_losses
from support.small_run import make_corpus
from support.torch_threads import torch_threads

from bertfast._native import native
from bertfast.data.corpus import Corpus
from bertfast.reporting.plot import draw_losses
from bertfast.training import run

# No test depends on the machine's speed.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def notes() -> Iterator[None]:
    """Runs draw no pictures of their losses, but for the tests that take `pictures`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "draw_losses", note_losses)
        yield


@pytest.fixture(scope="session", autouse=True)
def not_the_users_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for all tests that have none of their own; the processes of pytest-xdist share it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERTFAST_CACHE", str(folder / "cache"))
        yield


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "draw_losses", draw_losses)


@pytest.fixture(params=native.isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test with each instruction set that this processor has."""
    best = native.isa()
    native.use_isa(request.param)
    yield request.param
    native.use_isa(best)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("BERTFAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The corpus of a small run, which no test writes to."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model, which no test writes to."""
    return saved.save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def one_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes do not choose their regularisation, which takes most of their time."""
    monkeypatch.setattr("bertfast.inference.probe.classification.STRENGTHS", (1.0,))
    monkeypatch.setattr("bertfast.inference.probe.classification._ONE_FOLD", 0)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The messages that bertfast logs in the test, as the commands would show them."""
    lines: list[str] = []
    with listening(lines.append):
        yield lines


@pytest.fixture
def restored_logger() -> Iterator[None]:
    """After the test bertfast's logger is as before."""
    logger = logging.getLogger("bertfast")
    level, handlers = logger.level, logger.handlers
    yield
    logger.handlers = handlers
    logger.setLevel(level)


@pytest.fixture
def two_threads() -> Iterator[None]:
    with torch_threads(2):
        yield
