"""What every command does where its output, its arguments or its user are not the usual ones."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_run import CONFIG, make_corpus, make_model

from bertfast.command_line import Parser, run_command
from bertfast.config import CorpusConfig
from bertfast.data.corpus import Corpus
from bertfast.data.load import build_corpus, default_cache, load_corpus
from bertfast.errors import InputError
from bertfast.inference.encoder import Encoder
from bertfast.training.launch import train

ROOT = Path(__file__).parent.parent
TEXT = "It was dark in Zürich, 漢.\nThe rain fell.\n\nThe sun shone.\nIt was bright.\n\n"

# A command of many lines, or of one, without torch's seconds.
COMMAND = """
import sys
from bertfast.command_line import Parser, run_command
parser = Parser(prog="command")
parser.add_argument("text", nargs="?", default="\\n" * 1_000_000)
sys.exit(run_command(parser, lambda options: print(options.text), None))
"""


def command(*arguments: str | bytes, **options) -> subprocess.CompletedProcess[bytes]:
    options = {"stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, "-c", COMMAND, *arguments], cwd=ROOT, check=False, **options)


@pytest.mark.parametrize("arguments", [[], ["a line"], ["--help"]])
@pytest.mark.parametrize("merged", [False, True])
def test_nobody_reads_on(arguments, merged):
    """As with `| head`, and with `2>&1 | head`."""
    read, write = os.pipe()
    os.close(read)
    done = command(*arguments, stdout=write, **({"stderr": write} if merged else {}))
    os.close(write)
    assert done.returncode == (0 if arguments == ["--help"] else 128 + 13)
    assert not done.stderr


def test_a_full_disk_for_the_output():
    with Path("/dev/full").open("wb") as full:
        done = command("a line", stdout=full)
    assert (done.returncode, done.stderr) == (2, b"error: the disk: No space left on device\n")


def test_no_standard_output():
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" text >&-', sys.executable, COMMAND], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "Zürich 漢".encode()),
        ("latin-1", "Zürich \\u6f22".encode("latin-1")),
        ("ascii", b"Z\\xfcrich \\u6f22"),
    ],
)
def test_an_output_that_does_not_take_every_character(encoding, expected):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"}
    done = command("Zürich 漢", stdout=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, expected + b"\n", b"")


def test_an_argument_that_is_not_utf8():
    done = command(b"caf\xe9", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: the argument 'caf\\xe9' is not UTF-8: convert it, or rename the file\n"


def test_a_locale_that_is_not_utf8():
    """It doesn't change what is wrong with an argument, or that nothing is wrong with it."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = command("Zürich".encode(), stdout=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == (
        b"error: the argument 'Z\\xfcrich' is UTF-8, but the locale's encoding is ascii: set PYTHONUTF8=1\n"
    )
    done = command("Zürich".encode(), stdout=subprocess.PIPE, env={**environment, "PYTHONUTF8": "1"})
    assert (done.returncode, done.stderr) == (0, b"")


# ---- a user without a home


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """As under `docker --user 1234`: no HOME, and no entry in the table of users."""
    for name in ("HOME", "XDG_CACHE_HOME", "BERTFAST_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 1 << 30)


def test_no_home(homeless, tmp_path):
    with pytest.raises(RuntimeError):
        Path.home()  # so it is
    with pytest.raises(InputError, match="there is no home folder to keep corpora in: set HOME, or BERTFAST_CACHE to"):
        default_cache()
    with pytest.raises(InputError, match="no such file or folder: ~/texts"):
        load_corpus("~/texts", cache_dir=tmp_path)
    with pytest.raises(InputError, match="no such tokenizer: ~nobody-of-that-name/it"):
        (tmp_path / "some.txt").write_text(TEXT)
        load_corpus(tmp_path / "some.txt", cache_dir=tmp_path, tokenizer="~nobody-of-that-name/it")


def test_a_cache_named_without_a_home(homeless, monkeypatch, tmp_path):
    monkeypatch.setenv("BERTFAST_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    for cache in ("~/cache", "~nobody-of-that-name/cache"):
        monkeypatch.setenv("BERTFAST_CACHE", cache)
        with pytest.raises(InputError, match="there is no home folder"):
            default_cache()


def test_a_file_with_a_name_that_is_not_utf8(tmp_path, capsys):
    from bertfast import corpus as corpus_command

    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "good.txt").write_text(TEXT)
    (folder / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"\0")
    options = ["--min-freq", "1", "--skip-bad-files"]
    assert corpus_command.main(["build", str(folder), "--out", str(tmp_path / "out"), *options]) == 0
    assert "caf\\udce9.txt is not text" in capsys.readouterr().out


def test_a_home_folder_in_every_path(tmp_path, monkeypatch):
    """bash leaves the ~ of `--out=~/run` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    corpus = make_corpus(tmp_path)
    train(make_model(corpus), corpus, CONFIG, out="~/run").save("~/saved")
    assert Encoder.load("~/saved").model.max_len == CONFIG.max_len
    assert Encoder.load("~/run").model.max_len == CONFIG.max_len
    build_corpus("~/texts.txt", out=tmp_path / "built", config=CorpusConfig())
    assert load_corpus("~/built").fingerprint == Corpus.open("~/built").fingerprint


def fill_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


@pytest.mark.parametrize(
    "ask", [lambda: torch.empty(1 << 60), lambda: bytearray(1 << 60), lambda: np.empty(1 << 50), fill_a_gpu]
)
def test_more_memory_than_there_is(capsys, ask):
    assert run_command(Parser(), lambda options: ask(), []) == 2
    message = "error: there is too little memory for this: choose a smaller batch or model\n"
    assert capsys.readouterr().err == message


def test_another_error_of_torch_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        run_command(Parser(), lambda options: torch.ones(2) @ torch.ones(3), [])


@pytest.mark.parametrize(("place", "shown"), [("before", False), ("after", False), ("nowhere", True)])
def test_quiet_before_and_after_a_subcommand(capsys, place, shown):
    parser = Parser(prog="command")
    parser.add_subparsers(parser_class=Parser).add_parser("build")
    quiet = ["--quiet"]
    arguments = [*quiet * (place == "before"), "build", *quiet * (place == "after")]
    assert run_command(parser, lambda options: logging.getLogger("bertfast").info("a message"), arguments) == 0
    assert ("a message" in capsys.readouterr().err) is shown


def test_a_broken_pipe_that_is_no_output(monkeypatch):
    """Without standard error, as after `2>&-`."""

    def command(options):
        raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", None)
    with pytest.raises(BrokenPipeError):
        run_command(Parser(prog="command"), command, [])
