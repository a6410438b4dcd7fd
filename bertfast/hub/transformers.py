"""Reads and writes Hugging Face folders.

Writes a `transformers.BertForPreTraining`, as config.json and model.safetensors. Reads any `BertModel`,
`BertForMaskedLM` or `BertForPreTraining` that transformers 4 or 5 saved. Missing heads start fresh and are reported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bertfast.config import BertConfig
from bertfast.data.tokenizer import Tokenizer
from bertfast.errors import InputError
from bertfast.files import save_tensors
from bertfast.model import Bert
from bertfast.presets import PRESETS

POOLER, MASKED_LM_HEAD, NEXT_SENTENCE_HEAD = "pooler", "masked-LM head", "next-sentence head"

_EMBEDDINGS = {
    "embeddings.word.weight": "bert.embeddings.word_embeddings.weight",
    "embeddings.token_type.weight": "bert.embeddings.token_type_embeddings.weight",
    "embeddings.position.weight": "bert.embeddings.position_embeddings.weight",
    "embeddings.norm.weight": "bert.embeddings.LayerNorm.weight",
    "embeddings.norm.bias": "bert.embeddings.LayerNorm.bias",
}
_LAYER = {
    "query": ["attention.self.query"],
    "key_value": ["attention.self.key", "attention.self.value"],
    "attention_output": ["attention.output.dense"],
    "attention_norm": ["attention.output.LayerNorm"],
    "intermediate": ["intermediate.dense"],
    "output": ["output.dense"],
    "output_norm": ["output.LayerNorm"],
}
_HEADS = {
    POOLER: {"pooler": "bert.pooler.dense"},
    MASKED_LM_HEAD: {
        "masked_lm_head.transform": "cls.predictions.transform.dense",
        "masked_lm_head.norm": "cls.predictions.transform.LayerNorm",
    },
    NEXT_SENTENCE_HEAD: {"next_sentence_head": "cls.seq_relationship"},
}


def _names(config: BertConfig) -> dict[str, list[str]]:
    """Our parameter's name -> the Hugging Face names of the tensors that make it up, stacked by rows."""
    names = {ours: [theirs] for ours, theirs in _EMBEDDINGS.items()}
    for kind in ("weight", "bias"):
        for index in range(config.num_hidden_layers):
            for ours, parts in _LAYER.items():
                names[f"layers.{index}.{ours}.{kind}"] = [f"bert.encoder.layer.{index}.{part}.{kind}" for part in parts]
    for head in _HEADS:
        names |= _head_names(head)
    return names


def _head_names(head: str) -> dict[str, list[str]]:
    names = {
        f"{ours}.{kind}": [f"{theirs}.{kind}"] for ours, theirs in _HEADS[head].items() for kind in ("weight", "bias")
    }
    if head == MASKED_LM_HEAD:
        names["masked_lm_head.bias"] = ["cls.predictions.bias"]
    return names


# Parameters whose first dimension is the vocabulary, which we pad.
_VOCABULARY = ("embeddings.word.weight", "masked_lm_head.bias")
_WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
# Not weights, though transformers 4 saved them.
_BUFFERS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")


def export_state_dict(model: Bert) -> dict[str, Tensor]:
    """The model's weights under Hugging Face's names, float32, on the CPU, without the vocabulary's padding."""
    exported = {}
    parameters = dict(model.named_parameters())
    for ours, theirs in _names(model.config).items():
        tensor = parameters[ours].detach().cpu()
        if ours in _VOCABULARY:
            tensor = tensor[: model.config.vocab_size]
        for name, part in zip(theirs, tensor.chunk(len(theirs)), strict=True):
            exported[name] = part.contiguous().clone()
    return exported


class Pretrained(NamedTuple):
    """What a folder contains."""

    folder: Path
    model: Bert
    tokenizer: Tokenizer
    fresh: dict[str, str]
    """Heads that start fresh -> the reason."""
    unused: list[str]
    """Weights that a pretraining model doesn't have, such as a fine-tuned model's classifier."""

    def given(self) -> dict[str, Tensor]:
        """The model's parameters that the folder gave: all but those of heads that start fresh."""
        fresh = {ours for head in self.fresh for ours in _head_names(head)}
        return {name: each.detach() for name, each in self.model.named_parameters() if name not in fresh}

    def digest(self) -> str:
        """Of these parameters."""
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


def import_state_dict(
    model: Bert, state: dict[str, Tensor], source: str = "the weights", tied: bool = True
) -> tuple[dict[str, str], list[str]]:
    """Loads weights under Hugging Face's names into `model`.

    `tied`: whether a missing decoder is the word embeddings. bertfast's decoder always is: if the given one differs,
    the masked-LM head is left unchanged.

    Returns: the heads left unchanged, each with the reason; and the unused weights, by their names up to the first dot.

    Raises:
        InputError: a tensor of the encoder, or a part of a head, is missing, has the wrong shape, or isn't part of the
            model. Names `source` and the tensor.
    """
    state = _modern_names(state)
    decoder = state.pop("cls.predictions.decoder.weight", None)
    if "cls.predictions.decoder.bias" in state:  # transformers computes with this one
        state["cls.predictions.bias"] = state.pop("cls.predictions.decoder.bias")
    fresh = {}
    for head in _HEADS:
        if not any(name in state for names in _head_names(head).values() for name in names):
            fresh[head] = "has none"
    words = state.get(_WORD_EMBEDDINGS)
    apart = not tied if decoder is None else words is None or not torch.equal(decoder, words)
    if apart and MASKED_LM_HEAD not in fresh:
        fresh[MASKED_LM_HEAD] = "has one whose decoder is not its word embeddings, as bertfast's is"
    unchanged = {ours for head in fresh for ours in _head_names(head)}

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for ours, theirs in _names(model.config).items():
            if ours in unchanged:
                continue
            target: Tensor = parameters[ours]
            if ours in _VOCABULARY:
                target[model.config.vocab_size :].zero_()
                target = target[: model.config.vocab_size]
            for name, part in zip(theirs, target.chunk(len(theirs)), strict=True):
                if name not in state:
                    raise InputError(f"{source} holds no {name}: not a BERT that transformers or bertfast saved")
                tensor = state.pop(name)
                if part.shape != tensor.shape:
                    raise InputError(
                        f"{source}: {name} has the shape {tuple(tensor.shape)}, the model needs {tuple(part.shape)}"
                    )
                if not tensor.is_floating_point():
                    raise InputError(f"{source}: {name} is {tensor.dtype}: quantized weights can't be loaded")
                part.copy_(tensor)
    for names in map(_head_names, fresh):
        for theirs in names.values():
            state.pop(theirs[0], None)
    surplus = sorted(name for name in state if name.startswith("bert."))
    if surplus:
        raise InputError(f"{source} holds {surplus[0]}, which the model that config.json describes has no place for")
    return fresh, sorted({name.split(".")[0] for name in state})


def _modern_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that BertForPreTraining uses today.

    Early checkpoints, such as the published bert-base-uncased, call LayerNorm's parameters gamma and beta. A
    BertModel's names lack the prefix.
    """
    prefix = "" if any(name.startswith("bert.") for name in state) else "bert."
    renamed = {}
    for name, tensor in state.items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        renamed[name if name.startswith("cls.") else prefix + name] = tensor
    return {name: tensor for name, tensor in renamed.items() if name not in _BUFFERS}


def num_parameters(model: Bert) -> int:
    """The number of weights that `save_model` writes."""
    return sum(
        (tensor[: model.config.vocab_size] if name in _VOCABULARY else tensor).numel()
        for name, tensor in model.named_parameters()
    )


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


# Settings that would change the result, with the only value supported for each; a config.json may omit them.
_ONLY = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "quantization_config": None,
}
# Settings that a config.json omits are BERT-base's, as in transformers.
_DEFAULTS = BertConfig(**PRESETS["base"].model)


def read_json(path: Path) -> Any:
    """The content of a model folder's JSON file. Raises InputError if it can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read: {error}") from None


def read_settings(path: Path) -> dict[str, Any]:
    """The same for a file that holds an object."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} can't be read: it holds no settings")
    return values


def load_config(folder: Path) -> BertConfig:
    """The BertConfig of a Hugging Face folder. Raises InputError if it describes another kind of model."""
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
        if isinstance(value, bool) or not isinstance(value, int if isinstance(default, int) else (int, float)):
            raise InputError(f"{path} has {field.name} {value!r}, which should be a number like {default}")
        if not 0 <= value < math.inf:
            raise InputError(f"{path} has {field.name} {value}, which should be a number like {default}")
        known[field.name] = value
    try:
        config = dataclasses.replace(_DEFAULTS, **known)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not 0 <= config.pad_token_id < config.vocab_size:
        raise InputError(
            f"{path} has pad_token_id {config.pad_token_id}, outside its vocabulary of {config.vocab_size}"
        )
    return config


def load_pretrained(folder: str | Path, *needed: str) -> Pretrained:
    """The model and the tokenizer of a Hugging Face folder.

    Raises InputError if it holds no such model, a tokenizer that doesn't fit it, or not all of the `needed` heads.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that bertfast.pretrain or transformers saved")
    config, tokenizer = load_config(folder), Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size} tokens, its model only {config.vocab_size}"
        )
    source, state = _load_tensors(folder)
    model = Bert(config)
    model.trained_len = _trained_len(folder, config)
    model.base_model = _name_on_the_hub(folder)
    tied = read_settings(folder / "config.json").get("tie_word_embeddings") is not False
    fresh, unused = import_state_dict(model, state, str(source), tied)
    for head in needed:
        if head in fresh:
            raise InputError(f"the {head} is needed, and {folder} {fresh[head]}")
    return Pretrained(folder, model, tokenizer, fresh, unused)


def _trained_len(folder: Path, config: BertConfig) -> int:
    """The tokenizer's `model_max_length`; all positions if that is missing, or a huge number."""
    path = folder / "tokenizer_config.json"
    limit = read_settings(path).get("model_max_length") if path.exists() else None
    positions = config.max_position_embeddings
    return min(limit, positions) if isinstance(limit, int) and limit > 2 else positions


# owner/name, or the one name of the oldest models.
_ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_NAMED_BY_CARD = re.compile(r"""^base_model:(?:\s*-)?[ ]*["']?([^\s"']+)["']?[ ]*$""", re.MULTILINE)


def _name_on_the_hub(folder: Path) -> str:
    """What the Hub calls a folder's model, or the model that this was trained on from; empty if that is not known.

    From the folder's place in the Hub's cache (models--OWNER--NAME/snapshots/...), its card, or its config.json, where
    transformers 4 wrote the name or the path by which the model was loaded.
    """
    in_cache = re.fullmatch("models--(.+)/snapshots/.+", "/".join(folder.absolute().parts[-3:]))
    name = in_cache[1].replace("--", "/") if in_cache else _named_by_card(folder / "README.md")
    if name is None:
        name = read_settings(folder / "config.json").get("_name_or_path")
        if not isinstance(name, str) or not _ON_THE_HUB.fullmatch(name) or Path(name).exists():
            return ""
    return name if _ON_THE_HUB.fullmatch(name) else ""


def _named_by_card(path: Path) -> str | None:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = _NAMED_BY_CARD.search(content.split("\n---", 1)[0]) if content.startswith("---") else None
    return found[1] if found else None


def _load_tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The folder's weights, from one safetensors file or several, and the path of that file or of their index."""
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
