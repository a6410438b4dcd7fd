"""WikiText by name: a local copy if there is one, else a download from the Hugging Face hub, cached in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bertfast.data.fingerprint import hash_of
from bertfast.errors import InputError, require_package
from bertfast.files import locked, whole_file

# The training split's files. The pinned revision makes a name always mean the same text.
_REPOSITORY = "Salesforce/wikitext"
_REVISION = "b08601e04326c79dfdd32d625aee71d232d685c3"
_PARTS = {
    "wikitext-2": ("wikitext-2-v1/train-00000-of-00001.parquet",),
    "wikitext-103": ("wikitext-103-v1/train-00000-of-00002.parquet", "wikitext-103-v1/train-00001-of-00002.parquet"),
}
NAMES = tuple(_PARTS)


def find_wikitext(name: str, cache: Path) -> Path:
    """The path of the text `name`: ./NAME, ./data/NAME, ../data/NAME (as in the notebook), or in the cache.

    If none of these exists, it is downloaded into the cache. Raises `InputError` if that fails.
    """
    cached = cache / "texts" / name / "wiki.train.tokens"
    for place in (Path(name), Path("data", name), Path("..", "data", name), cached):
        if place.exists():
            return place
    cached.parent.mkdir(parents=True, exist_ok=True)
    with locked(cached.with_suffix(".lock"), f"downloading {name}"):
        if not cached.exists():
            parts = _download(name)
            with whole_file(cached) as partial, partial.open("w", encoding="utf-8") as file:
                file.writelines(_lines(parts))
    return cached


def _download(name: str) -> list[Path]:
    """The verified parquet files of `name`'s training split."""
    way_out = f"put a copy in data/{name}"
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"{name}: no copy here, and downloading one needs huggingface_hub: {way_out}, or "
            "pip install 'bertfast[hub]'"
        ) from None
    where: dict[str, Any] = {"repo_id": _REPOSITORY, "repo_type": "dataset", "revision": _REVISION}
    parts = []
    for part in _PARTS[name]:
        try:
            # Without a network this fails at once, while a download would retry for half a minute.
            sha256 = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(filename=part, **where)).etag
            path = Path(huggingface_hub.hf_hub_download(filename=part, **where))
        except Exception as error:  # from the hub's client or the HTTP library that it uses, which varies
            raise InputError(
                f"{name}: no copy here, and the Hugging Face hub can't be reached ({type(error).__name__}): "
                f"{way_out}, or run once with a network"
            ) from None
        if hash_of(path, hashlib.sha256()) != sha256:
            raise InputError(f"{path} isn't what the hub has ({part}, sha256 {sha256}): delete it and run again")
        parts.append(path)
    return parts


def _lines(parts: Iterable[Path]) -> Iterator[str]:
    """The rows of the parquet files: each is a line of WikiText, and an empty one an empty line."""
    require_package("pyarrow", "reading WikiText's parquet files")
    import pyarrow.parquet

    for part in parts:
        for batch in pyarrow.parquet.ParquetFile(part).iter_batches(columns=["text"]):
            for row in batch.column(0).to_pylist():
                yield row if row.endswith("\n") else f"{row}\n"
