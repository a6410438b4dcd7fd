"""Hugging Face folders in and out: config.json and model.safetensors as `transformers.BertForPreTraining` has them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bertfast.config import BertConfig
from bertfast.errors import InputError
from bertfast.files import save_tensors
from bertfast.model import Bert

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
    "pooler": "bert.pooler.dense",
    "masked_lm_head.transform": "cls.predictions.transform.dense",
    "masked_lm_head.norm": "cls.predictions.transform.LayerNorm",
    "next_sentence_head": "cls.seq_relationship",
}


def _names(config: BertConfig) -> dict[str, list[str]]:
    """Our parameter's name -> the names whose tensors, one above another, it consists of."""
    names = {ours: [theirs] for ours, theirs in _EMBEDDINGS.items()}
    for kind in ("weight", "bias"):
        for index in range(config.num_hidden_layers):
            for ours, parts in _LAYER.items():
                names[f"layers.{index}.{ours}.{kind}"] = [f"bert.encoder.layer.{index}.{part}.{kind}" for part in parts]
        for ours, theirs in _HEADS.items():
            names[f"{ours}.{kind}"] = [f"{theirs}.{kind}"]
    names["masked_lm_head.bias"] = ["cls.predictions.bias"]
    return names


# Those whose first dimension is the vocabulary, whose storage we pad.
_VOCABULARY = ("embeddings.word.weight", "masked_lm_head.bias")


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


def import_state_dict(model: Bert, state: dict[str, Tensor], source: str = "the weights") -> None:
    """Fills `model` from weights under Hugging Face's names, as `BertForPreTraining.state_dict` has them.

    Raises InputError, naming `source` and the tensor, where one is missing or has another shape.
    """
    # Names of the first checkpoints, such as the published bert-base-uncased.
    state = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): tensor
        for name, tensor in state.items()
    }
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for ours, theirs in _names(model.config).items():
            missing = [name for name in theirs if name not in state]
            if missing:
                raise InputError(f"{source} holds no {missing[0]}: not a folder of BertForPreTraining")
            tensor = torch.cat([state[name].float() for name in theirs])
            target: Tensor = parameters[ours]
            if ours in _VOCABULARY:
                target[model.config.vocab_size :].zero_()
                target = target[: model.config.vocab_size]
            if target.shape != tensor.shape:
                raise InputError(
                    f"{source}: {theirs[0]} has the shape {tuple(tensor.shape)}, the model needs {tuple(target.shape)}"
                )
            target.copy_(tensor)


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


def load_config(folder: Path) -> BertConfig:
    """The BertConfig of a Hugging Face folder. Raises InputError where it describes another kind of model."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder} holds no config.json: give a folder that bertfast or transformers saved") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} can't be read: it holds no settings")
    if values.get("model_type") != "bert":
        raise InputError(f"{path} describes a model of type {values.get('model_type')!r}; only 'bert' can be loaded")
    if values.get("hidden_act", "gelu") != "gelu":
        raise InputError(f"{path} asks for the activation {values['hidden_act']!r}; only 'gelu' can be loaded")
    for name, only in (("position_embedding_type", "absolute"), ("tie_word_embeddings", True)):
        if values.get(name, only) != only:
            raise InputError(f"{path} has {name} {values[name]!r}; only {only!r} can be loaded")
    defaults = BertConfig()
    known: dict[str, Any] = {}
    for field in dataclasses.fields(BertConfig):
        value, default = values.get(field.name), getattr(defaults, field.name)
        if value is None:
            continue
        if not isinstance(value, (int, float)) or isinstance(default, int) != isinstance(value, int):
            raise InputError(f"{path} has {field.name} {value!r}, which should be a number like {default}")
        known[field.name] = value
    return BertConfig(**known)


def load_model(folder: Path) -> Bert:
    """The model of a Hugging Face folder."""
    config = load_config(folder)
    path = folder / "model.safetensors"
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no model.safetensors: give a folder that bertfast or transformers saved"
        ) from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    model = Bert(config)
    import_state_dict(model, state, str(path))
    return model
