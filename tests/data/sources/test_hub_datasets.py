"""Data sets loaded by the real `datasets` library, from a folder, and without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest
from support.refusal import refusal

from bertfast.config import CorpusConfig
from bertfast.data.sentences import sentences
from bertfast.data.sources.find import find_source
from bertfast.data.sources.hub_datasets import find_dataset
from bertfast.errors import InputError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No network, and nothing cached by other tests."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")

    def unreachable(*what, **how):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)


@pytest.fixture
def folder(tmp_path):
    """A data set of two splits, as parquet, the commonest format on the hub."""
    path = tmp_path / "rain"
    path.mkdir()
    train = [f"It rains {i} times. It pours." for i in range(600)]
    pyarrow.parquet.write_table(pyarrow.table({"id": range(600), "text": train}), path / "train-00000.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"id": [1], "text": ["It snows."]}), path / "test-00000.parquet")
    return path


def source(name: str, cache: Path, **settings: str):
    return find_source(name, CorpusConfig(**settings), cache)


def refused(name: str, cache: Path, **settings: str) -> str:
    """The line with which it is refused, before anything is copied."""
    message = refusal(source, name, cache, **settings)
    assert not list(cache.rglob("*.parquet"))
    return message


def test_a_data_set_in_a_folder(folder, tmp_path):
    found = source(f"hf:{folder}", tmp_path / "cache")
    assert found.description == f"hf:{folder} (parquet, plain)"
    assert found.name == f"hf:{folder.name}"  # without the folders that contain it
    stream = list(sentences(found.files[0]))
    assert stream[:6] == ["It rains 0 times.", "It pours.", "", "It rains 1 times.", "It pours.", ""]
    assert stream.count("") == 600
    [test] = source(f"hf:{folder}:test", tmp_path / "cache").files
    assert list(sentences(test)) == ["It snows.", ""]


def test_a_changed_folder_is_loaded_again(folder, tmp_path):
    source(f"hf:{folder}:test", tmp_path / "cache")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["It hails."]}), folder / "test-00000.parquet")
    [test] = source(f"hf:{folder}:test", tmp_path / "cache").files
    assert list(sentences(test)) == ["It hails.", ""]


def test_folders_of_one_name_are_cached_apart(folder, tmp_path, monkeypatch):
    """So that one process can read the first while another loads the second; and apart from the hub's of that name."""
    monkeypatch.chdir(tmp_path)
    [first] = source("hf:rain", tmp_path / "cache").files
    (tmp_path / "other").mkdir()
    folder.rename(tmp_path / "other" / "rain")
    monkeypatch.chdir("other")
    [second] = source("hf:rain", tmp_path / "cache").files
    assert first.path != second.path
    assert source("hf:../other/rain", tmp_path / "cache").name == "hf:rain"


def test_names_on_the_hub(tmp_path, monkeypatch):
    """The library gets repository, configuration and split; a cached data set is not loaded again."""
    asked = []

    def load_dataset(*what, **how):
        asked.append((*what, how["split"]))
        return datasets.Dataset.from_dict({"body": ["It rains.", None, ""]}).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *what, **how: None)
    for _ in range(2):
        for name in ("hf:rain", "hf:weather/rain", "hf:weather/rain/daily", "hf:weather/rain/daily:test[:9]"):
            [file] = source(name, tmp_path, text_column="body").files
            assert list(filter(None, sentences(file))) == ["It rains."]
    assert asked == [
        ("rain", None, "train"),
        ("weather/rain", None, "train"),
        ("weather/rain", "daily", "train"),
        ("weather/rain", "daily", "test[:9]"),
    ]


def test_the_column_is_missing(folder, tmp_path):
    message = refused(f"hf:{folder}", tmp_path / "cache", text_column="body")
    assert message == f"hf:{folder}: no column 'body'; there are 'id', 'text': name one with --text-column"


def test_the_column_holds_no_text(folder, tmp_path):
    assert f"hf:{folder}, row 1: 'id' holds a number, not text" in refused(
        f"hf:{folder}", tmp_path / "cache", text_column="id"
    )


def test_a_nested_column_and_a_list(tmp_path):
    (tmp_path / "nested").mkdir()
    rows = [{"data": {"text": "It rains."}, "lines": ["It snows.", "It hails."]}, {"data": None, "lines": []}]
    (tmp_path / "nested/train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for column, expected in (("data.text", ["It rains.", ""]), ("lines", ["It snows.", "It hails.", ""])):
        [file] = source(f"hf:{tmp_path}/nested", tmp_path / "cache", text_column=column).files
        assert [*filter(None, sentences(file)), ""] == expected
    with pytest.raises(InputError, match=r"no column 'data.body'; there are 'data.text'"):
        source(f"hf:{tmp_path}/nested", tmp_path / "cache", text_column="data.body")


def test_no_such_split(folder, tmp_path):
    message = refused(f"hf:{folder}:dev", tmp_path / "cache")
    assert message.startswith(f"hf:{folder}:dev can't be loaded (")
    assert "train" in message  # the split that there is


def test_without_a_network(tmp_path):
    message = refused("hf:weather/rain", tmp_path / "cache")
    assert message.startswith("hf:weather/rain can't be loaded (no route): ")
    assert message.endswith("run once with a network, or give files (.parquet, .jsonl, ...)")


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = refused("hf:weather/rain", tmp_path / "cache")
    assert message == (
        "hf:weather/rain needs the datasets library: pip install 'bertfast[hub]', or give files (.parquet, .jsonl, ...)"
    )


def test_an_empty_name(tmp_path):
    assert "'hf:' names no data set" in refused("hf:", tmp_path / "cache")


def test_json_lines_in_a_folder(tmp_path):
    (tmp_path / "snow").mkdir()
    (tmp_path / "snow/train.jsonl").write_text("".join(json.dumps({"text": f"Flake {i}."}) + "\n" for i in range(3)))
    path, _ = find_dataset(f"hf:{tmp_path}/snow", "text", tmp_path / "cache")
    assert pyarrow.parquet.read_table(path)["text"].to_pylist() == ["Flake 0.", "Flake 1.", "Flake 2."]
