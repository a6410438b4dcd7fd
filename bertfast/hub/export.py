"""Adds the files that other libraries need to a model folder."""

from __future__ import annotations

from pathlib import Path

from bertfast.config import EncodeConfig
from bertfast.hub import onnx, sentence_transformers
from bertfast.hub.model_card import name_forms
from bertfast.hub.state_dict import POOLER
from bertfast.hub.transformers import load_pretrained


def check_form(form: str) -> None:
    """Raises InputError if an export in this form needs a missing package. Call it before other work."""
    if form == "onnx":
        onnx.require_onnx()


def export(folder: str | Path, form: str, config: EncodeConfig | None = None) -> None:
    """Adds the files of `form`, one of `FORMS`, to a folder that bertfast or transformers saved.

    Existing files are replaced, and bertfast's model card is updated. sentence-transformers takes `pooling` and
    `normalize` from `config`; ONNX ignores it. A model without a pooler has no `pooler_output` in ONNX. Raises
    InputError if the folder holds no model.
    """
    pretrained = load_pretrained(folder)
    if form == "onnx":
        onnx.save_onnx(pretrained.folder, pretrained.model, POOLER not in pretrained.fresh)
    else:
        sentence_transformers.save_modules(pretrained.folder, pretrained.model, config or EncodeConfig())
    name_forms(pretrained.folder)
