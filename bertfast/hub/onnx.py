"""A model as an ONNX graph, written by torch's exporter, for onnxruntime. Needs the extra `onnx`."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertfast.errors import InputError
from bertfast.files import whole_file
from bertfast.model import Bert, Layer

FILE = "onnx/model.onnx"  # where optimum and sentence-transformers look for it

_PACKAGES = ("onnx", "onnxscript")
# An ONNX file is a protocol buffer, which can't be larger.
_MOST_BYTES = 2_000_000_000


def require_onnx() -> None:
    """Raises InputError if a package that the exporter needs is missing."""
    if not all(map(importlib.util.find_spec, _PACKAGES)):
        raise InputError(f"an export to onnx needs more packages: pip install {' '.join(_PACKAGES)}")


def save_onnx(folder: Path, model: Bert, pooler: bool = True) -> None:
    """Adds `FILE` to the folder.

    The graph's inputs are `input_ids`, `attention_mask` and `token_type_ids`, (batch, sequence) int64, with any batch
    size and any length up to the model's. Its outputs are float32: `last_hidden_state` (batch, sequence, hidden) and,
    with `pooler`, `pooler_output` (batch, hidden), as in `transformers.BertModel`.
    """
    require_onnx()
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if size > _MOST_BYTES:
        raise InputError(
            f"the weights take {size / 1e9:.1f} GB, and an ONNX file holds 2: load {folder} in transformers"
        )
    graph = _export(_PaddedBert(model.cpu(), pooler).eval(), ["last_hidden_state", "pooler_output"][: 1 + pooler])
    for node in graph.graph.node:
        del node.metadata_props[:]  # paths of source files on this machine
    (folder / FILE).parent.mkdir(exist_ok=True)
    with whole_file(folder / FILE) as partial:
        partial.write_bytes(graph.SerializeToString())


def _export(module: nn.Module, outputs: list[str]) -> Any:
    """The graph of a module with three inputs of any batch size and length."""
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    # Three tensors, since the exporter would merge inputs that are the same tensor.
    examples = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in range(3))
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)  # hides a warning that torchvision is missing, which the model does not use
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's warnings about its own code
            program = torch.onnx.export(
                module,
                examples,
                input_names=["input_ids", "attention_mask", "token_type_ids"],
                output_names=outputs,
                dynamic_shapes=(shape, shape, shape),
                dynamo=True,
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    assert program is not None
    return program.model_proto


class _PaddedBert(nn.Module):
    """The encoder of a `Bert` over padded sequences, in operations that ONNX has."""

    def __init__(self, bert: Bert, pooler: bool) -> None:
        super().__init__()
        self.embeddings, self.layers = bert.embeddings, bert.layers
        self.pooler = bert.pooler if pooler else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        position = self.embeddings.position(torch.arange(input_ids.shape[1]))
        embedded = self.embeddings.word(input_ids) + self.embeddings.token_type(token_type_ids) + position
        states = self.embeddings.norm(embedded)
        mask = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        for layer in self.layers:
            states = _layer(cast(Layer, layer), states, mask)
        if self.pooler is None:
            return (states,)
        return states, torch.tanh(self.pooler(states[:, 0]))


def _layer(layer: Layer, states: Tensor, mask: Tensor) -> Tensor:
    """Computes `layer`. `mask` is added to the attention scores."""
    query = layer.query(states).unflatten(2, (layer.heads, -1)).transpose(1, 2)
    key, value = layer.key_value(states).unflatten(2, (2, layer.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + mask
    context = (scores.softmax(3) @ value).transpose(1, 2).flatten(2)
    attended: Tensor = layer.attention_norm(layer.attention_output(context) + states)
    normed: Tensor = layer.output_norm(layer.output(F.gelu(layer.intermediate(attended))) + attended)
    return normed
