"""The forms that a model folder can be exported to: their files, and how another library opens them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bertfast.hub import onnx, sentence_transformers


class Form(NamedTuple):
    files: tuple[str, ...]
    """The files that are added to the folder."""
    purpose: str
    """For --help."""
    example: str
    """Python code that opens the current folder."""

    def is_in(self, folder: Path) -> bool:
        return all((folder / name).is_file() for name in self.files)


_SENTENCE_TRANSFORMERS = """\
import sentence_transformers

model = sentence_transformers.SentenceTransformer(".")  # or the model's name on the Hub
model.encode(["one text", "another"])"""

_ONNX = f"""\
import onnxruntime

session = onnxruntime.InferenceSession("{onnx.FILE}")
[each.name for each in session.get_inputs()]  # each int64, (batch, sequence)"""

FORMS = {
    "sentence-transformers": Form(
        sentence_transformers.FILES,
        "the modules of SentenceTransformer(DIR), which gives a vector for each text",
        _SENTENCE_TRANSFORMERS,
    ),
    "onnx": Form(
        (onnx.FILE,),
        f"a graph for onnxruntime in DIR/{onnx.FILE}, which gives every token's hidden states",
        _ONNX,
    ),
}
