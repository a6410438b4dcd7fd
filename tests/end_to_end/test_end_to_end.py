"""As a new user would: one command turns a folder of text into a model for other libraries."""

import csv
import gzip
import html
import json

import pytest
import torch
import transformers
from support.command_line import run
from support.notebook import wikitext_folder


@pytest.fixture
def my_texts(tmp_path):
    """Real paragraphs in every form that a folder may hold."""
    text = (wikitext_folder() / "valid.txt").read_text(encoding="utf-8").replace("<unk>", "something")
    paragraphs = [line.strip() for line in text.splitlines() if " . " in line][:240]
    parts = [paragraphs[first : first + 40] for first in range(0, 240, 40)]
    folder = tmp_path / "my_texts"
    (folder / "notes").mkdir(parents=True)
    (folder / "plain.txt").write_text("\n\n".join(parts[0]), encoding="utf-8")
    (folder / "notes" / "notes.md").write_text("# Notes\n\n" + "\n\n".join(parts[1]), encoding="utf-8")
    body = "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in parts[2])
    (folder / "page.html").write_text(f"<html><title>A page</title><body>{body}</body></html>", encoding="utf-8")
    lines = [json.dumps({"id": number, "text": paragraph}) for number, paragraph in enumerate(parts[3])]
    (folder / "records.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *enumerate(parts[4])])
    with gzip.open(folder / "old.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n\n".join(parts[5]))
    return folder


@pytest.mark.usefixtures("cache")
def test_a_folder_of_text_becomes_a_model_for_other_libraries(my_texts, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "runs" / "mine"
    command = ["--corpus", my_texts, "--preset", "tiny", "--steps", 30, "--out", out, "--device", "cpu"]
    exports = ["--export", "sentence-transformers", "--export", "onnx"]
    done = run(*command, *exports, "--batch-size", 32)
    assert done.returncode == 0, done.stderr

    filled = transformers.pipeline("fill-mask", str(out))("it was the first [MASK] of the season .")
    frequent = {"the", ",", ".", "of", "and", "in", "to", "a", "something"}
    assert filled[0]["token_str"] in frequent  # thirty steps teach no more

    model = sentence_transformers.SentenceTransformer(str(out), device="cpu")
    vectors = model.encode(["one sentence , and", "another one"], convert_to_tensor=True)
    assert vectors.shape == (2, 128)

    batch = model.tokenizer(["one sentence , and", "another one"], padding=True, return_tensors="np")
    session = onnxruntime.InferenceSession(out / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    [states] = session.run(["last_hidden_state"], {name: values.astype("int64") for name, values in batch.items()})
    mask = torch.tensor(batch["attention_mask"]).unsqueeze(2)
    means = (torch.tensor(states) * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(means, vectors, rtol=1e-4, atol=1e-4)
