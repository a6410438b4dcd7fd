"""Text in many scripts: no letter is lost or cut apart, and unknown words are counted by characters."""

from __future__ import annotations

import json
import re
import unicodedata
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import transformers
from support.trained_tokenizer import train

from bertfast.config import CorpusConfig
from bertfast.data.corpus import Corpus
from bertfast.data.load import load_corpus
from bertfast.data.tokenizing.special_tokens import SPECIAL_TOKENS
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError
from bertfast.hub.state_dict import MASKED_LM_HEAD
from bertfast.hub.transformers import load_pretrained
from bertfast.inference.encoder import Encoder
from bertfast.inference.fill_mask import fill_mask
from bertfast.pretrain import main as pretrain

pytestmark = pytest.mark.usefixtures("cache")

# By language, words that become equal if marks are stripped.
WORDS = {
    "ja": "か が は ば ハ バ パ ガギグ カキク",
    "hi": "म में क की कि हिन्दी हनद",
    "de": "schon schön Grüße drücken drucken Apfel Äpfel",
    "ko": "한국 사람 학교",
    "fr": "pêche péché peche à a",
    "vi": "ma má mà mả mã mạ",
    "ru": "мои мой все всё",
    "ar": "أمل امل",
    "th": "ที่ ท ก่อน กอน",
    "pl": "łaska laska żaba zaba",
    "tr": "ısı ISI isi İSİ ağ ag",
}


def trained(text: str, kind: str = "wordpiece", **settings: object) -> Tokenizer:
    return train(kind, [text], CorpusConfig(kind, min_freq=1, **settings))


@pytest.mark.parametrize("kind", ["wordpiece", "char"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
@pytest.mark.parametrize("language", WORDS)
def test_letters_keep_their_marks(tmp_path, language, named, kind):
    """Whether or not the language is named; ids are transformers' own, and tokens are in NFC."""
    words = WORDS[language].split()
    tokenizer = trained(" ".join(words), kind, language=language if named else "en")
    tokens = tokenizer.tokens(range(tokenizer.vocab_size))
    assert all(unicodedata.is_normalized("NFC", token) for token in tokens)
    ids = tokenizer.encode_sentences(words)
    assert tokenizer.special_ids.unk not in chain.from_iterable(ids)
    if not (language == "tr" and named):
        assert len(set(map(tuple, ids))) == len({word.lower() for word in words})
    if language != "tr":
        joined = ["".join(tokenizer.tokens(each)).replace("##", "") for each in ids]
        assert joined == [word.lower() for word in words]
    tokenizer.save(tmp_path, 64)
    for loader in (transformers.AutoTokenizer, transformers.BertTokenizerFast):
        if loader is transformers.AutoTokenizer or not (language == "tr" and named):
            assert loader.from_pretrained(tmp_path)(words)["input_ids"] == [tokenizer.encode(word)[0] for word in words]


def test_turkish_and_azeri_case(tmp_path):
    for language in ("tr", "az", "tr-TR"):
        tokenizer = trained(WORDS["tr"], language=language)
        ids = tokenizer.encode_sentences(["ISI", "İSİ"])
        tokens = ["".join(tokenizer.tokens(each)).replace("##", "") for each in ids]
        assert tokens == ["ısı", "isi"]
        assert tokenizer.splits_at_spaces
        tokenizer.save(tmp_path, 64)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert theirs("ISI İSİ")["input_ids"] == tokenizer.encode("ISI İSİ")[0]
        assert Tokenizer.load(tmp_path).normalisation == "lower-cased with a dotless i, accents kept"


def test_english_is_as_berts_own_vocabularies_have_it():
    """The accents of a few foreign names are stripped by default."""
    text = "the cafe and its guests are here all day long " * 50 + "the café"
    assert trained(text).normalisation == "lower-cased, accents stripped"
    assert "é" not in trained(text).backend.get_vocab()
    assert trained(text, strip_accents=False).normalisation == "lower-cased, accents kept"
    assert trained(text, language="fr").normalisation == "lower-cased, accents kept"
    assert trained(text, lowercase=False).normalisation == "cased, accents kept"
    stripped = trained(WORDS["de"], strip_accents=True)
    assert "".join(stripped.tokens(stripped.encode("schön").ids[1:-1])).replace("##", "") == "schon"


def test_stripped_words_are_counted_as_one():
    """A character, or a merge, is as frequent as both spellings together."""
    text = "naive " * 3 + "naïve " * 3
    config = CorpusConfig("wordpiece", min_freq=6, strip_accents=True)
    assert "naive" in train("wordpiece", [text], config).backend.get_vocab()


def test_the_description_says_what_was_chosen(tmp_path):
    (tmp_path / "some.txt").write_text("が か\n\nम में\n" * 5)
    config = CorpusConfig("wordpiece", min_freq=1, language="ja")
    corpus = load_corpus(tmp_path / "some.txt", config=config)
    assert re.search(r"vocabulary \d+ \(lower-cased, accents kept\)$", corpus.description[1])
    stripped = load_corpus(tmp_path / "some.txt", config=CorpusConfig("wordpiece", min_freq=1, strip_accents=True))
    assert stripped.description[1].endswith("(lower-cased, accents stripped)")
    assert len({corpus.fingerprint, stripped.fingerprint}) == 2


def test_accents_cannot_be_stripped_from_whole_words():
    with pytest.raises(InputError, match="--strip-accents is for --tokenizer wordpiece or char"):
        CorpusConfig("word", strip_accents=True)


# ---- long words


LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def sequence(seed: int, length: int, letters: str = LETTERS) -> str:
    return "".join(np.random.default_rng(seed).choice(list(letters), length))


@pytest.mark.parametrize("kind", ["wordpiece", "char"])
def test_words_of_any_length(tmp_path, kind):
    texts = [sequence(i, 50 + 37 * i) for i in range(40)]
    tokenizer = trained("\n".join(texts).replace("\n", " "), kind, vocab_size=100)
    for each in texts:
        [ids] = tokenizer.encode_sentences([each])
        assert "".join(tokenizer.tokens(ids)).replace("##", "") == each.lower()
        assert ids == tokenizer.encode(each)[0][1:-1]
    tokenizer.save(tmp_path, 64)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"] == [
        tokenizer.encode(each)[0] for each in texts
    ]
    assert Tokenizer.load(tmp_path).splits_at_spaces


def test_a_few_long_words_leave_berts_tokenizer_as_it_is(tmp_path):
    text = "all the words of this text are short and sweet " * 8000 + sequence(0, 150)
    trained(text).save(tmp_path, 64)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "BertTokenizer"


TEXTS = {
    "proteins": "\n".join(sequence(i, 100 + i) for i in range(60)),
    "SMILES": "\n".join(f"CC(=O){'C' * (1 + i % 9)}N1CCC(CC1)c1ccc(F)cc1" for i in range(60)),
    "Thai": "\n".join("ผมไปโรงเรียนทุกวัน" * (1 + i % 7) for i in range(60)),
    "Chinese": "\n".join("我们今天去学校读书写字"[: 3 + i % 8] for i in range(60)),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_unspaced_text_trains_a_model(tmp_path, kind):
    """A sentence a line, of which nothing is unknown; the saved model fills a mask."""
    (tmp_path / "some.txt").write_text(TEXTS[kind], encoding="utf-8")
    out = tmp_path / "out"
    flags = "--tokenizer wordpiece --min-freq 1 --steps 2 --batch-size 8 --device cpu --negatives any --max-len 32"
    assert pretrain(["--corpus", str(tmp_path / "some.txt"), "--out", str(out), *flags.split()]) == 0
    corpus = Corpus.open(next((tmp_path / "cache" / "corpora").glob("*/manifest.json")).parent)
    assert corpus.num_sentences == 60
    assert corpus.token_counts[corpus.special_ids.unk] == 0
    pretrained = load_pretrained(out, MASKED_LM_HEAD)
    encoder = Encoder(pretrained.model, pretrained.tokenizer)
    [candidates] = fill_mask(encoder, f"{TEXTS[kind][:9]} [MASK]")
    assert len(candidates) == 5


@pytest.mark.parametrize("given", [False, True])
def test_unknown_characters_are_counted(tmp_path, said, given):
    """Against a plain count over the words; a warning names what helps."""
    words = ["short", *(sequence(i, 40) for i in range(9))]
    path = tmp_path / "some.txt"
    path.write_text("\n".join(f"short {word} short" for word in words * 2))
    config = CorpusConfig(min_freq=3, text_form="lines")
    if given:  # a tokenizer that is asked about whole sentences
        folder = load_corpus(path, config=config).folder
        saved = json.loads((folder / "tokenizer.json").read_text())
        saved["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "NFC"}]}
        (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
        config = CorpusConfig(str(tmp_path / "tokenizer.json"), text_form="lines")
        said.clear()
    corpus = load_corpus(path, config=config)
    share = 9 * 40 / (9 * 40 + 5 + 20 * 5)
    assert f"(30.0% unknown, with {share:.1%} of the characters)" in corpus.description[1]
    assert [line for line in said if "characters" in line] == [
        f"warning: {share:.1%} of the characters are in words that the vocabulary lacks: --tokenizer wordpiece divides "
        "words, char takes each character; or give a lower --min-freq, or a tokenizer of the text's language"
    ]


# ---- vocab.txt


def lines_by_id(folder: Path) -> list[str]:
    return (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]


@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json"])
def test_line_n_of_vocab_txt_is_id_n(tmp_path, form):
    """Where the vocabulary has holes, or tokens that no line can hold; read back with transformers."""
    lines = [*SPECIAL_TOKENS, "a", "the", "", "fox", "a", "[unused7]", "##s", "dog", "the", "end"]
    given, folder = tmp_path / "given", tmp_path / "saved"
    given.mkdir()
    folder.mkdir()
    (given / "vocab.txt").write_text("".join(f"{line}\n" for line in lines))
    tokenizer = Tokenizer.load(given)
    if form == "tokenizer.json":
        saved = json.loads(tokenizer.backend.to_str())
        saved["model"]["vocab"]["new\nline"] = len(lines) + 3
        (given / form).write_text(json.dumps(saved))
        tokenizer = Tokenizer.load(given / form)
    tokenizer.save(folder, 64)
    written = lines_by_id(folder)
    assert len(written) == len(set(written)) == tokenizer.vocab_size
    vocabulary = {token: id for token, id in tokenizer.backend.get_vocab().items() if token and "\n" not in token}
    assert {token: id for id, token in enumerate(written) if token in vocabulary} == vocabulary
    text = "the fox, a dogs end"
    ids = tokenizer.encode(text)[0]
    assert len(set(ids)) == 9
    assert transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == ids
    (folder / "tokenizer.json").unlink()
    assert transformers.BertTokenizerFast.from_pretrained(folder)(text)["input_ids"] == ids
    assert Tokenizer.load(folder).encode(text)[0] == ids
