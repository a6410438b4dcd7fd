"""WikiText by name: a local copy, or a download from the hub."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from support.wikitext import WIKITEXT

from bertfast.config import CorpusConfig
from bertfast.data.sentences import MARKS, sentences
from bertfast.data.sources.find import find_source
from bertfast.errors import InputError


def test_a_local_copy_is_found_where_the_notebook_puts_it(write, tmp_path, monkeypatch):
    write(WIKITEXT, "data/wikitext-2/wiki.train.tokens")
    (tmp_path / "notebooks").mkdir()
    for place in (tmp_path, tmp_path / "notebooks", tmp_path / "data"):
        monkeypatch.chdir(place)
        [file] = find_source("wikitext-2", CorpusConfig(), tmp_path / "cache").files
        assert file.path.samefile(tmp_path / "data/wikitext-2/wiki.train.tokens")


class Hub:
    """Serves one file with the functions of `huggingface_hub`."""

    def __init__(self, path: Path, sha256: str) -> None:
        self.path, self.sha256, self.downloads = path, sha256, 0

    def hf_hub_url(self, **where):
        return "https://hub/" + where["filename"]

    def get_hf_file_metadata(self, url):
        assert url == "https://hub/wikitext-2-v1/train-00000-of-00001.parquet"
        return type("Metadata", (), {"etag": self.sha256})

    def hf_hub_download(self, **where):
        self.downloads += 1
        return str(self.path)


@pytest.fixture
def parquet(tmp_path):
    """The lines of `WIKITEXT` as rows, as on the hub: an empty line is an empty row."""
    rows = ["" if line == " " else f"{line}\n" for line in WIKITEXT.splitlines()]
    pyarrow.parquet.write_table(pyarrow.table({"text": rows}), tmp_path / "part.parquet")
    return tmp_path / "part.parquet"


def test_a_download_is_cached(parquet, tmp_path, monkeypatch):
    hub = Hub(parquet, hashlib.sha256(parquet.read_bytes()).hexdigest())
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        [file] = find_source("wikitext-2", CorpusConfig(), tmp_path / "cache").files
        assert file.form == "wikitext"
        assert [each for each in sentences(file) if each not in MARKS] == [
            "A lobster is big",
            "It is [UNK]",
            "It [UNK] .",
        ]
    assert hub.downloads == 1


def test_a_damaged_download_is_refused(parquet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(parquet, "0" * 64))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"part\.parquet isn't what the hub has"):
        find_source("wikitext-2", CorpusConfig(), tmp_path / "cache")
    assert not (tmp_path / "cache/texts/wikitext-2/wiki.train.tokens").exists()


def test_without_a_network(tmp_path, monkeypatch):
    class Offline(Hub):
        def get_hf_file_metadata(self, url):
            raise ConnectionError("Name or service not known")

    monkeypatch.setitem(sys.modules, "huggingface_hub", Offline(tmp_path, ""))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^wikitext-2: .*ConnectionError.*put a copy in data/wikitext-2, or run once"):
        find_source("wikitext-2", CorpusConfig(), tmp_path / "cache")


def test_without_the_hub_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"put a copy in data/wikitext-103, or pip install 'bertfast\[hub\]'"):
        find_source("wikitext-103", CorpusConfig(), tmp_path / "cache")
