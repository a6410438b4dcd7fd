"""The modules of sentence-transformers in a model folder, which turn a text into a vector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from bertfast.config import BertConfig, EncodeConfig
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError
from bertfast.files import whole_file
from bertfast.hub.transformers import read_json, read_settings
from bertfast.model import Bert

FILES = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json")

# As versions 2 to 5 write them; 6 writes other names, but reads these.
_POOLING_MODES = {"mean": "pooling_mode_mean_tokens", "max": "pooling_mode_max_tokens", "cls": "pooling_mode_cls_token"}


def save_modules(folder: Path, model: Bert, config: EncodeConfig) -> None:
    """Adds `FILES` to the folder of a model and its tokenizer.

    They are a Transformer, of texts of `config.max_len` tokens, `config.pooling` of its last layer and, with
    `config.normalize`, a Normalize. `SentenceTransformer(folder)` then gives the vectors of `Encoder.embed`. The
    model's own files stay unchanged.
    """
    paths = {"Transformer": "", "Pooling": "1_Pooling"} | ({"Normalize": "2_Normalize"} if config.normalize else {})
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(paths.items())
    ]
    max_len = min(config.max_len or model.max_len, model.max_len)
    transformer = {"max_seq_length": max_len, "do_lower_case": False}
    pooling = {
        "word_embedding_dimension": model.config.hidden_size,
        **{name: mode == config.pooling for mode, name in _POOLING_MODES.items()},
    }
    contents: list[Any] = [modules, transformer, pooling]
    for name, content in zip(FILES, contents, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        with whole_file(folder / name) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class Modules(NamedTuple):
    """A folder's modules as settings of EncodeConfig."""

    settings: dict[str, Any]
    """The settings that compute the same vectors; empty if the folder has no modules."""
    refusal: str = ""
    """Why there are no such settings."""


def load_modules(folder: Path, model: BertConfig, tokenizer: Tokenizer) -> Modules:
    """The modules of a folder that sentence-transformers or `save_modules` wrote."""
    path = folder / "modules.json"
    if not path.is_file():
        return Modules({})
    try:
        settings = {**_pooled(path), "max_len": _max_len(folder, model)}
        _refuse_other_texts(folder, tokenizer)
        return Modules(settings)
    except InputError as error:
        return Modules({}, str(error))


def _pooled(path: Path) -> dict[str, Any]:
    """The pooling, and whether a Normalize follows it."""
    modules = read_json(path)
    if not isinstance(modules, list):
        raise InputError(f"{path} is not a list of modules")
    try:
        names = [module["type"].rpartition(".")[2] for module in modules]
        paths = [path.parent / module["path"] for module in modules]
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{path} is not a list of modules") from None
    normalize = names[2:] == ["Normalize"]
    if names != ["Transformer", "Pooling", *["Normalize"] * normalize]:
        raise InputError(f"{path} has the modules {', '.join(names)}, which bertfast does not compute")
    path = paths[1] / "config.json"
    config = read_settings(path)
    flags = [name for name, given in config.items() if name.startswith("pooling_mode_") and given is True]
    modes = config.get("pooling_mode") or flags or "mean"
    modes = modes if isinstance(modes, list) else [modes]
    for mode, flag in _POOLING_MODES.items():
        if modes in ([mode], [flag]):
            return {"pooling": mode, "normalize": normalize}
    raise InputError(f"{path} has the pooling {' + '.join(map(str, modes))}, which bertfast does not compute")


def _max_len(folder: Path, model: BertConfig) -> int:
    """The maximum tokens of a text, in the files that sentence-transformers reads. Version 6 writes the second."""
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        path = folder / name
        most = read_settings(path).get(key) if path.is_file() else None
        if most is not None:
            if not isinstance(most, int) or most < 3:
                raise InputError(f"{path} has {key} {most!r}, which should be a number of tokens")
            return min(most, model.max_position_embeddings)
    return model.max_position_embeddings


def _refuse_other_texts(folder: Path, tokenizer: Tokenizer) -> None:
    """Raises InputError if sentence-transformers changes a text before it tokenises it."""
    path = folder / "sentence_bert_config.json"
    normalizer = tokenizer.backend.normalizer
    cased = normalizer is None or normalizer.normalize_str("A") != "a"
    if cased and path.is_file() and read_settings(path).get("do_lower_case"):
        raise InputError(f"{path} lower-cases texts, and the folder's tokenizer does not")
    path = folder / "config_sentence_transformers.json"
    config = read_settings(path) if path.is_file() else {}
    prompts, name = config.get("prompts"), config.get("default_prompt_name")
    if name is not None and isinstance(prompts, dict) and prompts.get(name):
        raise InputError(f"{path} puts {prompts[name]!r} before each text, which bertfast does not")
