"""The weights under Hugging Face's names: exports a BertForPreTraining's, imports those of any BERT."""

from __future__ import annotations

import torch
from torch import Tensor

from bertfast.config import BertConfig
from bertfast.errors import InputError
from bertfast.model import Bert

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
    """A parameter's name -> the Hugging Face names of the tensors that it consists of, stacked by rows."""
    names = {ours: [theirs] for ours, theirs in _EMBEDDINGS.items()}
    for kind in ("weight", "bias"):
        for index in range(config.num_hidden_layers):
            for ours, parts in _LAYER.items():
                names[f"layers.{index}.{ours}.{kind}"] = [f"bert.encoder.layer.{index}.{part}.{kind}" for part in parts]
    for head in _HEADS:
        names |= head_names(head)
    return names


def head_names(head: str) -> dict[str, list[str]]:
    names = {
        f"{ours}.{kind}": [f"{theirs}.{kind}"] for ours, theirs in _HEADS[head].items() for kind in ("weight", "bias")
    }
    if head == MASKED_LM_HEAD:
        names["masked_lm_head.bias"] = ["cls.predictions.bias"]
    return names


# Parameters whose first dimension is the vocabulary, which bertfast pads.
_VOCABULARY = ("embeddings.word.weight", "masked_lm_head.bias")
_WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
# Buffers, not weights, which transformers 4 saved, too.
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
            exported[name] = part.clone()
    return exported


def import_state_dict(
    model: Bert, state: dict[str, Tensor], source: str = "the weights", tied: bool = True
) -> tuple[dict[str, str], list[str]]:
    """Loads weights under Hugging Face's names into `model`.

    `tied`: whether a decoder that is missing in `state` equals the word embeddings. bertfast's decoder always does: if
    the given one differs, the masked-LM head is left unchanged.

    Returns: the heads left unchanged, each with the reason; and the unused weights, by their names up to the first dot.

    Raises:
        InputError: a tensor of the encoder or a part of a head is missing, has the wrong shape or type, or isn't part
            of the model. The message names `source` and the tensor.
    """
    state = _modern_names(state)
    decoder = state.pop("cls.predictions.decoder.weight", None)
    if "cls.predictions.decoder.bias" in state:  # transformers uses this one
        state["cls.predictions.bias"] = state.pop("cls.predictions.decoder.bias")
    fresh = {}
    for head in _HEADS:
        if not any(name in state for names in head_names(head).values() for name in names):
            fresh[head] = "has none"
    words = state.get(_WORD_EMBEDDINGS)
    differs = not tied if decoder is None else words is None or not torch.equal(decoder, words)
    if differs and MASKED_LM_HEAD not in fresh:
        fresh[MASKED_LM_HEAD] = "has one whose decoder is not its word embeddings, as bertfast's is"
    unchanged = {ours for head in fresh for ours in head_names(head)}

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
    for names in map(head_names, fresh):
        for theirs in names.values():
            state.pop(theirs[0], None)
    surplus = sorted(name for name in state if name.startswith("bert."))
    if surplus:
        raise InputError(f"{source} holds {surplus[0]}, which the model that config.json describes has no place for")
    return fresh, sorted({name.split(".")[0] for name in state})


def _modern_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that BertForPreTraining uses now.

    Early checkpoints, such as the published bert-base-uncased, call LayerNorm's parameters gamma and beta. Those of a
    BertModel lack the prefix.
    """
    prefix = "" if any(name.startswith("bert.") for name in state) else "bert."
    renamed = {}
    for name, tensor in state.items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        renamed[name if name.startswith("cls.") else prefix + name] = tensor
    return {name: tensor for name, tensor in renamed.items() if name not in _BUFFERS}


def num_parameters(model: Bert) -> int:
    """The number of weights, without the vocabulary's padding."""
    return sum(
        (tensor[: model.config.vocab_size] if name in _VOCABULARY else tensor).numel()
        for name, tensor in model.named_parameters()
    )
