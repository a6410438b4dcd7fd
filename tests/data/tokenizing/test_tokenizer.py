"""Ids against transformers', and files that transformers loads as its own."""

from __future__ import annotations

import itertools
import json
import tracemalloc
import warnings
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from support.notebook import wikitext_folder
from support.tokenizer_texts import TEXTS, unicode_text, wikitext_sentences
from support.trained_tokenizer import train, train_wordpiece
from tokenizers import AddedToken, models, pre_tokenizers

from bertfast.config import CorpusConfig
from bertfast.data.tokenizing.special_tokens import SPECIAL_TOKENS, SpecialTokens
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError

# ---- ids


@settings(max_examples=100)
@given(text=unicode_text)
def test_remembered_pieces_change_nothing(trained, text):
    assert trained.splits_at_spaces
    [expected] = trained.backend.encode_batch_fast([text], add_special_tokens=False)
    assert trained.encode_sentences([text, text]) == [expected.ids, expected.ids]
    assert [id for piece in trained.encode_pieces(text.split(" ")) for id in piece.ids] == expected.ids


@pytest.mark.parametrize("characters", ["鶴", "ACGT"])
def test_long_pieces_are_not_remembered(characters):
    """A text without spaces is one piece a line, and hardly any comes twice."""
    tokenizer = train("char", [characters * 200], CorpusConfig(min_freq=1))
    assert tokenizer.splits_at_spaces
    tracemalloc.start()
    try:
        for number in range(400):
            line = (characters * 1000)[: 500 + number]
            [ids], [encoded] = tokenizer.encode_sentences([line]), tokenizer.encode_pieces([line])
            assert len(ids) == len(line) and encoded.ids == ids
        assert tracemalloc.get_traced_memory()[0] < 1 << 19  # remembered, they would take several megabytes
    finally:
        tracemalloc.stop()


def test_other_tokenizers_are_asked_as_they_are():
    """Where a token can reach over a space, pieces between spaces can't stand for the text."""
    special = {token: id for id, token in enumerate(SPECIAL_TOKENS)}
    backend = tokenizers.Tokenizer(models.WordLevel({**special, "a b": 5}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("|")
    assert Tokenizer(backend).encode_sentences(["a b|a b"]) == [[5, 5]]
    spaced = tokenizers.Tokenizer(models.WordLevel(special, "[UNK]"))
    spaced.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    spaced.add_tokens([AddedToken("new york", normalized=False)])
    assert Tokenizer(spaced).encode_sentences(["new york city"]) == [[5, 1]]


def test_encode(trained):
    ids, types, _ = trained.encode("the quick", "fox")
    assert trained.tokens(ids)[0] == "[CLS]"
    assert [id for id in ids if id in (2, 3)] == [2, 3, 3]
    first = ids.index(3) + 1
    assert types == [0] * first + [1] * (len(ids) - first)
    assert trained.encode("the quick")[:2] == (ids[:first], [0] * first)
    [encoding] = trained.backend.encode_batch([("the quick", "fox")])
    assert (encoding.ids, encoding.type_ids) == (ids, types)
    assert encoding.offsets[1][0] == 0
    last = encoding.offsets[first - 2]
    assert last[1] == len("the quick")


# ---- transformers


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture
def saved(trained, tmp_path):
    trained.save(tmp_path, 64)
    return tmp_path


def auto(transformers, folder):
    """What `AutoTokenizer` makes of the folder, which it must do without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return transformers.AutoTokenizer.from_pretrained(folder)


def test_autotokenizer_gives_the_same_ids_of_real_text(transformers, real, tmp_path, caplog, capfd):
    real.save(tmp_path, 1 << 20)
    theirs = auto(transformers, tmp_path)
    texts = [line for line in (wikitext_folder() / "test.txt").read_text(encoding="utf-8").splitlines() if line][:1500]
    with_pair = theirs(texts[:-1], texts[1:])
    ours = [real.encode(a, b)[:2] for a, b in itertools.pairwise(texts)]
    assert with_pair["input_ids"] == [ids for ids, _ in ours]
    assert with_pair["token_type_ids"] == [types for _, types in ours]
    assert theirs(texts)["input_ids"] == [real.encode(text)[0] for text in texts]
    assert not caplog.records
    assert not capfd.readouterr().err


def test_autotokenizer_beside_a_models_configuration(transformers, trained, saved, capfd):
    (saved / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForPreTraining"]}))
    theirs = auto(transformers, saved)
    assert theirs("the naïve Fox [MASK]")["input_ids"] == trained.encode("the naïve Fox [MASK]")[0]
    assert not capfd.readouterr().err


@pytest.fixture(scope="module")
def theirs(transformers, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    trained.save(folder, 64)
    return auto(transformers, folder)


@settings(max_examples=70)
@given(text=unicode_text, pair=unicode_text.filter(bool))  # to transformers an empty pair is none
def test_autotokenizer_gives_the_same_ids_of_any_text(theirs, trained, text, pair):
    assert theirs(text)["input_ids"] == trained.encode(text)[0]
    both = theirs(text, pair)
    assert (both["input_ids"], both["token_type_ids"]) == trained.encode(text, pair)[:2]


def test_what_autotokenizer_knows(transformers, trained, saved):
    theirs = auto(transformers, saved)
    assert theirs.model_max_length == 64
    for role, token, id in zip(SpecialTokens._fields, SPECIAL_TOKENS, trained.special_ids, strict=True):
        assert getattr(theirs, f"{role}_token") == token
        assert getattr(theirs, f"{role}_token_id") == id
    assert len(theirs) == trained.vocab_size
    assert set(theirs.model_input_names) == {"input_ids", "token_type_ids", "attention_mask"}


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece_is_berts_own(transformers, lowercase, tmp_path):
    """Our ids are those of BertTokenizerFast, made from the vocabulary alone, whatever the text."""
    ours = train_wordpiece(TEXTS, CorpusConfig(min_freq=1, lowercase=lowercase))
    ours.save(tmp_path, 64)
    (tmp_path / "tokenizer.json").unlink()
    settings_of_both = {"do_lower_case": lowercase, "strip_accents": False}  # by default kept in such a mix
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings_of_both))
    theirs = transformers.BertTokenizerFast.from_pretrained(tmp_path)

    @settings(max_examples=300)
    @given(unicode_text)
    def same(text):
        assert theirs(text)["input_ids"] == ours.encode(text)[0]

    same()
    real = list(wikitext_sentences()[::20])
    assert theirs(real)["input_ids"] == [ours.encode(sentence)[0] for sentence in real]


WAYS = [
    {},
    {"do_lower_case": False},
    {"do_lower_case": False, "strip_accents": True},
    {"strip_accents": False},
    {"tokenize_chinese_chars": False},
]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    """A vocab.txt with words of either case, accents kept."""
    folder = tmp_path_factory.mktemp("vocabulary")
    texts = [*TEXTS, *(text.lower() for text in TEXTS), *wikitext_sentences()]
    train_wordpiece(texts, CorpusConfig(lowercase=False, vocab_size=8000)).save(folder, 64)
    return folder / "vocab.txt"


@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_given_tokenizer_is_berts_own(transformers, vocabulary, way, form, tmp_path):
    """As BertTokenizerFast makes it of a vocabulary and its settings, or saved it: ids of any text and, of its
    defaults, of a whole file.

    What a corpus, which holds no [CLS] and [SEP], is made with gives the same.
    """
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "vocab.txt").write_bytes(vocabulary.read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **way}))
    theirs = transformers.BertTokenizerFast.from_pretrained(folder)
    if form == "tokenizer.json":
        folder = tmp_path / "saved"
        theirs.save_pretrained(folder)
        assert (folder / form).is_file()
    ours = Tokenizer.load(folder)

    @settings(max_examples=200)
    @given(st.one_of(unicode_text, st.text()))
    def same(text):
        ids = theirs(text)["input_ids"]
        assert ours.encode(text)[0] == ids
        assert ours.encode_sentences([text]) == [ids[1:-1]]

    same()
    whole_file = wikitext_folder() / {"vocab.txt": "valid.txt", "tokenizer.json": "test.txt"}[form]
    lines = whole_file.read_text(encoding="utf-8").splitlines()[: 400 if way else None]
    assert ours.encode_sentences(lines) == theirs(lines, add_special_tokens=False)["input_ids"]


# ---- loading


def test_load_gives_back_what_was_saved(trained, saved):
    for path in (saved, saved / "tokenizer.json", str(saved)):
        loaded = Tokenizer.load(path)
        assert loaded.backend.to_str() == trained.backend.to_str()
        assert loaded.special_ids == trained.special_ids
        assert loaded.vocab_size == trained.vocab_size


@pytest.mark.parametrize("lowercase", [True, False])
def test_load_vocab_txt(lowercase, tmp_path):
    trained = train_wordpiece(TEXTS, CorpusConfig(min_freq=1, lowercase=lowercase))
    trained.save(tmp_path, 64)
    (tmp_path / "tokenizer.json").unlink()
    text = "The naïve Fox in Zürich"
    assert Tokenizer.load(tmp_path, not lowercase).encode(text) == trained.encode(text)  # as its configuration says
    (tmp_path / "tokenizer_config.json").unlink()
    for path in (tmp_path, tmp_path / "vocab.txt"):
        assert Tokenizer.load(path, lowercase, strip_accents=False).encode(text) == trained.encode(text)


def test_padding_and_truncation_of_a_loaded_tokenizer_are_put_off(trained, tmp_path):
    other = tokenizers.Tokenizer.from_str(trained.backend.to_str())
    other.enable_truncation(4)
    other.enable_padding(length=9)
    other.save(str(tmp_path / "tokenizer.json"))
    text = "the fox the fox the fox"
    assert Tokenizer.load(tmp_path).encode(text) == trained.encode(text)


def test_a_tokenizer_without_berts_special_tokens_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "a": 3}, "[UNK]")).save(str(path))
    with pytest.raises(InputError) as refused:
        Tokenizer.load(path)
    assert str(refused.value) == (
        f"{path}: the tokenizer has no [SEP], [MASK]: bertfast needs all of BERT's special tokens"
    )


def test_what_is_not_a_tokenizer_is_refused(tmp_path):
    (tmp_path / "broken.json").write_text("{\n]")
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "nowhere", r"^no such tokenizer: .*nowhere; give word, wordpiece, char, or the path of one$"),
        (tmp_path / "empty", r"empty holds no tokenizer: neither tokenizer.json nor vocab.txt$"),
        (tmp_path / "broken.json", r"broken.json is not a tokenizer: [^\n]*$"),
    ):
        with pytest.raises(InputError, match=message):
            Tokenizer.load(path)
