"""The files that sentence-transformers needs in a Hugging Face folder: the modules that turn a text into a vector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bertfast.config import EncodeConfig
from bertfast.files import whole_file
from bertfast.model import Bert

FILES = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json")

# As versions 2 to 5 write them; 6 writes other names, but reads these.
_POOLING_MODES = {"mean": "pooling_mode_mean_tokens", "max": "pooling_mode_max_tokens", "cls": "pooling_mode_cls_token"}


def save_modules(folder: Path, model: Bert, config: EncodeConfig) -> None:
    """Adds `FILES` to the folder of a model and its tokenizer: a Transformer, then `config.pooling` of its last layer.

    `SentenceTransformer(folder)` then gives the vectors of `Encoder.embed`. The model's own files stay unchanged.
    """
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    transformer = {"max_seq_length": model.max_len, "do_lower_case": False}
    pooling = {
        "word_embedding_dimension": model.config.hidden_size,
        **{name: mode == config.pooling for mode, name in _POOLING_MODES.items()},
    }
    contents: list[Any] = [modules, transformer, pooling]
    for name, content in zip(FILES, contents, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        with whole_file(folder / name) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
