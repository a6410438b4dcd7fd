"""Reads and writes Hugging Face folders.

Writes a `transformers.BertForPreTraining`, as config.json and model.safetensors. Reads any `BertModel`,
`BertForMaskedLM` or `BertForPreTraining` that transformers 4 or 5 saved. Missing heads start fresh and are reported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bertfast.config import BertConfig
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError
from bertfast.files import expanded, save_tensors
from bertfast.hub.base_model import name_on_the_hub
from bertfast.hub.state_dict import export_state_dict, head_names, import_state_dict
from bertfast.model import Bert
from bertfast.presets import PRESETS


class Pretrained(NamedTuple):
    """The content of a model folder."""

    folder: Path
    model: Bert
    tokenizer: Tokenizer
    fresh: dict[str, str]
    """Heads that start fresh -> the reason."""
    unused: list[str]
    """Names of weights that a pretraining model doesn't have, such as a fine-tuned model's classifier."""

    def given(self) -> dict[str, Tensor]:
        """The model's parameters that came from the folder: all but those of heads that start fresh."""
        fresh = {ours for head in self.fresh for ours in head_names(head)}
        return {name: each.detach() for name, each in self.model.named_parameters() if name not in fresh}

    def digest(self) -> str:
        """A digest of these parameters."""
        digest = hashlib.blake2b(digest_size=8)
        for name, each in self.given().items():
            digest.update(name.encode())
            digest.update(each.numpy().data)
        return digest.hexdigest()

    def notes(self) -> list[str]:
        """Lines for the log of a run that starts from the folder: what starts fresh, and what is unused."""
        reasons: dict[str, list[str]] = {}
        for head, reason in self.fresh.items():
            reasons.setdefault(reason, []).append(f"the {head}")
        lines = [
            f"{_enumerated(heads)} start{'s' * (len(heads) == 1)} fresh: {self.folder} {reason}"
            for reason, heads in reasons.items()
        ]
        if self.unused:
            lines.append(f"not used in pretraining: {_enumerated(self.unused)} of {self.folder}")
        return lines


def _enumerated(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def save_model(model: Bert, folder: Path) -> None:
    """Writes config.json and model.safetensors into `folder`."""
    config = {
        "architectures": ["BertForPreTraining"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "tie_word_embeddings": True,
        **dataclasses.asdict(model.config),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_tensors(export_state_dict(model), folder / "model.safetensors", {"format": "pt"})


# Settings that change the result, with the only value supported for each; a config.json may omit them.
_ONLY = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "quantization_config": None,
}
# The values of settings that a config.json omits: BERT-base's, as in transformers.
_DEFAULTS = BertConfig(**PRESETS["base"].model)


def read_json(path: Path) -> Any:
    """The content of a model folder's JSON file. Raises InputError if it can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read: {error}") from None


def read_settings(path: Path) -> dict[str, Any]:
    """The content of a model folder's JSON file that holds an object. Raises InputError if it can't be read."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} can't be read: it holds no settings")
    return values


def load_config(folder: Path) -> tuple[BertConfig, dict[str, Any]]:
    """The BertConfig of a Hugging Face folder, and all that its config.json holds.

    Raises InputError if it describes another kind of model.
    """
    path = folder / "config.json"
    if not path.exists():
        raise InputError(f"{folder} holds no config.json: give a folder that bertfast or transformers saved")
    values = read_settings(path)
    if values.get("model_type", "bert") != "bert":
        raise InputError(f"{path} describes a model of type {values['model_type']!r}; only 'bert' can be loaded")
    for name, only in _ONLY.items():
        if values.get(name, only) != only:
            raise InputError(f"{path} has {name} {values[name]!r}; only {only!r} can be loaded")
    known: dict[str, Any] = {}
    for field in dataclasses.fields(BertConfig):
        value, default = values.get(field.name), getattr(_DEFAULTS, field.name)
        if value is None:
            continue
        number = int if isinstance(default, int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, number) or not 0 <= value < math.inf:
            raise InputError(f"{path} has {field.name} {value!r}, which should be a number like {default}")
        known[field.name] = value
    try:
        config = dataclasses.replace(_DEFAULTS, **known)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if config.pad_token_id >= config.vocab_size:
        raise InputError(
            f"{path} has pad_token_id {config.pad_token_id}, outside its vocabulary of {config.vocab_size}"
        )
    return config, values


def load_pretrained(folder: str | Path, *needed: str) -> Pretrained:
    """The model and the tokenizer of a Hugging Face folder.

    Raises InputError if the folder holds no BERT, if the tokenizer doesn't fit the model, or if a head in `needed` is
    missing.
    """
    folder = expanded(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that bertfast.pretrain or transformers saved")
    config, settings = load_config(folder)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size} tokens, its model only {config.vocab_size}"
        )
    source, state = _load_tensors(folder)
    model = Bert(config)
    model.trained_len = _trained_len(folder, config)
    model.base_model = name_on_the_hub(folder, settings)
    fresh, unused = import_state_dict(model, state, str(source), settings.get("tie_word_embeddings") is not False)
    for head in needed:
        if head in fresh:
            raise InputError(f"the {head} is needed, and {folder} {fresh[head]}")
    return Pretrained(folder, model, tokenizer, fresh, unused)


def _trained_len(folder: Path, config: BertConfig) -> int:
    """The tokenizer's `model_max_length`; all positions if it is missing or larger than their number."""
    path = folder / "tokenizer_config.json"
    limit = read_settings(path).get("model_max_length") if path.exists() else None
    positions = config.max_position_embeddings
    return min(limit, positions) if isinstance(limit, int) and limit > 2 else positions


def _load_tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The folder's weights, from one safetensors file or several, and the path of the file or of the files' index."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return single, _load_safetensors([single])
    if index.is_file():
        files = read_settings(index).get("weight_map")
        if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
            raise InputError(f"{index} can't be read: it maps no weights to files")
        return index, _load_safetensors(folder / Path(name).name for name in sorted(set(files.values())))
    if any(folder.glob("pytorch_model*.bin")):
        raise InputError(
            f"{folder} holds its weights as pickle, which can run code and is never opened here. If you trust it, "
            f"convert it: {conversion_command(folder)}"
        )
    raise InputError(f"{folder} holds no model.safetensors: give a folder that bertfast or transformers saved")


def _load_safetensors(paths: Iterable[Path]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for path in paths:
        try:
            state |= load_file(path)
        except FileNotFoundError:
            raise InputError(f"{path} is missing: the folder holds only a part of its weights") from None
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} can't be read: {error}") from None
    return state


def conversion_command(folder: Path) -> str:
    """A shell command that converts a folder's pytorch_model*.bin to model.safetensors."""
    return (
        'python -c "import sys, glob, torch, safetensors.torch as s; '
        "s.save_file({n: t.clone(memory_format=torch.contiguous_format) for f in glob.glob(sys.argv[1] + "
        "'/pytorch_model*.bin') for n, t in torch.load(f, weights_only=True, map_location='cpu').items()}, "
        f"sys.argv[1] + '/model.safetensors', {{'format': 'pt'}})\" {shlex.quote(str(folder))}"
    )
