"""Filled masks, compared with transformers' pipeline."""

import pytest
import tokenizers
import transformers
from support.saved_model import save

from bertfast.config import FillMaskConfig
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError
from bertfast.fill_mask import main
from bertfast.inference.encoder import Encoder
from bertfast.inference.fill_mask import fill_mask


@pytest.fixture(scope="module", params=["word", "wordpiece"])
def folder(request, tmp_path_factory):
    """A model whose vocabulary is larger than its tokenizer's."""
    return save(tmp_path_factory.mktemp(request.param), request.param, max_len=24, unused=7)


@pytest.mark.parametrize("text", ["the crane is [MASK] .", "[MASK] came", "A[MASK] crane [MASK], he [MASK]"])
def test_candidates_equal_the_pipelines(folder, text):
    encoder = Encoder.load(folder)
    vocab_size = encoder.tokenizer.vocab_size
    pipeline = transformers.pipeline("fill-mask", str(folder))
    theirs = pipeline(text, top_k=vocab_size + 7)
    theirs = theirs if isinstance(theirs[0], list) else [theirs]
    ours = fill_mask(encoder, text, FillMaskConfig(top_k=12))
    assert len(ours) == text.count("[MASK]")
    for mine, expected in zip(ours, theirs, strict=True):
        expected = [each for each in expected if each["token"] < vocab_size][:12]
        assert [candidate.token for candidate in mine] == [each["token_str"] for each in expected]
        for candidate, each in zip(mine, expected, strict=True):
            assert candidate.probability == pytest.approx(each["score"], rel=1e-4)


def test_a_filled_text_has_the_token_in_place_of_the_mask(folder):
    encoder = Encoder.load(folder)
    every = FillMaskConfig(top_k=1_000_000)
    first, second = fill_mask(encoder, "É  [MASK] fly [MASK].", every)
    assert len(first) == len(second) == encoder.tokenizer.vocab_size
    filled = {candidate.token: candidate.filled for candidate in first}
    assert filled["crane"] == "É  crane fly [MASK]."
    filled = {candidate.token: candidate.filled for candidate in second}
    assert filled["crane"] == "É  [MASK] fly crane."
    assert filled.get("##g", "É  [MASK] flyg.") == "É  [MASK] flyg."
    assert ("##g" in filled) == (folder / "vocab.txt").exists()


def test_a_tokenizers_own_prefix_of_pieces(tmp_path):
    encoder = Encoder.load(save(tmp_path))
    every = FillMaskConfig(top_k=1_000_000)
    expected = [each.filled for each in fill_mask(encoder, "A [MASK]", every)[0]]
    backend = tokenizers.Tokenizer.from_str(encoder.tokenizer.backend.to_str().replace("##", "~"))
    other = Encoder(encoder.model, Tokenizer(backend))
    assert [each.filled for each in fill_mask(other, "A [MASK]", every)[0]] == expected


def test_a_decomposed_text_is_filled_as_the_composed_one(tmp_path, capfd):
    save(tmp_path, "word", words=["caf\u00e9", "a"])
    filled = []
    for text in ("caf\u00e9 [MASK] caf\u00e9", "cafe\u0301 [MASK] cafe\u0301"):
        assert main(["--model", str(tmp_path), text]) == 0
        filled.append(capfd.readouterr().out)
    assert filled[0] == filled[1]
    assert "caf\u00e9 a caf\u00e9" in filled[0]


def test_the_command(folder, capfd):
    assert main(["--model", str(folder), "he [MASK] left", "[MASK] [MASK]", "--top-k", "3"]) == 0
    blocks = [block.splitlines() for block in capfd.readouterr().out.split("\n\n")]
    expected = [
        candidates
        for text in ("he [MASK] left", "[MASK] [MASK]")
        for candidates in fill_mask(Encoder.load(folder), text, FillMaskConfig(top_k=3))
    ]
    assert [[line.split(maxsplit=2) for line in block] for block in blocks] == [
        [[f"{each.probability:.4f}", each.token, each.filled] for each in candidates] for candidates in expected
    ]
    assert main(["--model", str(folder), "[MASK]"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == FillMaskConfig.top_k == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a crane"], "error: no [MASK] in 'a crane': write [MASK] where a word is to be found"),
        (["[mask]"], "error: no [MASK] in '[mask]'"),
        (["[MASK] " * 23], "error: the text has 25 tokens, the model takes 24"),
        (["[MASK]", "--top-k", "0"], "error: --top-k must be at least 1, not 0"),
        ([], "error: the following arguments are required: TEXT"),
    ],
)
def test_wrong_input_is_one_line(folder, capfd, arguments, message):
    assert main(["--model", str(folder), *arguments]) == 2
    captured = capfd.readouterr()
    assert captured.err.startswith(message)
    assert len(captured.err.splitlines()) == 1
    assert not captured.out


def test_a_folder_without_a_masked_lm_head(folder, tmp_path, capfd):
    transformers.BertModel.from_pretrained(folder).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    capfd.readouterr()
    assert main(["--model", str(tmp_path), "[MASK]"]) == 2
    assert capfd.readouterr().err == f"error: the masked-LM head is needed, and {tmp_path} has none\n"
    assert main(["--model", str(tmp_path / "nowhere"), "[MASK]"]) == 2
    assert capfd.readouterr().err.startswith(f"error: {tmp_path / 'nowhere'}: no such folder")
    with pytest.raises(InputError, match=r"no \[MASK\] in ''"):
        fill_mask(Encoder.load(folder), "")
