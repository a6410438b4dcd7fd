"""Vocabularies against the notebook's, ids against transformers', and files that transformers loads as its own."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from support.notebook import import_d2l, notebook_paragraphs, wikitext_folder
from tokenizers import AddedToken, models, pre_tokenizers

from bertfast.config import CorpusConfig
from bertfast.data.sentences import sentences
from bertfast.data.text_file import TextFile
from bertfast.data.tokenizer import (
    SPECIAL_TOKENS,
    SpecialTokens,
    Tokenizer,
    WordCounter,
    char_tokenizer,
    count_words,
    forget_rarest,
    sampled_share,
    train_word,
    train_wordpiece,
    word_tokenizer,
    wordpiece_tokenizer,
)
from bertfast.errors import InputError


def train_char(texts, config):
    return char_tokenizer(count_words(texts, "char", config.lowercase, config.base_language), config)


TRAINERS = {"word": train_word, "wordpiece": train_wordpiece, "char": train_char}
# The notebook's names of the special tokens, and BERT's.
NAMES = {"<pad>": "[PAD]", "<unk>": "[UNK]", "<cls>": "[CLS]", "<sep>": "[SEP]", "<mask>": "[MASK]"}

TEXTS = [
    "The quick brown fox jumps over the lazy dog .",
    "the Fox , the DOG , and the naïve café in Zürich",
    "unaffable unbelievable affable believable",
    "漢字 かな 한국 Ελλάδα Σ ΟΔΟΣ i̇ İ ß ﬁ ½",
    "[MASK] , [UNK] and[SEP]more [mask]",
] * 5

# Letters with and without case, accents alone and composed, ideographs, spaces of all kinds, controls, specials.
unicode_text = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from([*" \t\u00a0\u2028\x0b\x0c\x1c\x85\u200b\u0301éÉİΣß漢.,'-#", *SPECIAL_TOKENS, "##ing", "the"]),
    ),
    max_size=12,
).map("".join)


def batched(texts: list[str], size: int) -> list[list[str]]:
    return [texts[begin : begin + size] for begin in range(0, len(texts), size)]


def wikitext_sentences() -> list[str]:
    files = (TextFile(wikitext_folder() / name, "wikitext") for name in ("test.txt", "valid.txt"))
    return [sentence for file in files for sentence in sentences(file) if sentence]


@pytest.fixture(scope="module", params=["word", "wordpiece", "char"])
def kind(request):
    return request.param


@pytest.fixture(scope="module", params=[True, False], ids=["lower-cased", "cased"])
def trained(request, kind) -> Tokenizer:
    return TRAINERS[kind](TEXTS, CorpusConfig(min_freq=5, lowercase=request.param))


@pytest.fixture(scope="module")
def real(kind) -> Tokenizer:
    """Trained on WikiText-2's validation and test text."""
    return TRAINERS[kind](wikitext_sentences(), CorpusConfig())


# ---- vocabularies


def test_the_word_vocabulary_is_the_notebooks():
    d2l = import_d2l()
    words = [sentence.split() for paragraph in notebook_paragraphs() for sentence in paragraph]
    theirs = d2l.Vocab(words, min_freq=5, reserved_tokens=["<pad>", "<mask>", "<cls>", "<sep>"])
    ours = train_word(wikitext_sentences(), CorpusConfig())
    assert ours.vocab_size == len(theirs) == 6899
    assert set(ours.backend.get_vocab()) == {NAMES.get(token, token) for token in theirs.idx_to_token}


def test_words_are_numbered_by_frequency_then_spelling():
    tokenizer = train_word(["b c a", "c b", "c", "rare"], CorpusConfig(min_freq=1))
    assert tokenizer.tokens(range(tokenizer.vocab_size)) == [*SPECIAL_TOKENS, "c", "b", "a", "rare"]


def test_special_tokens_come_first(trained):
    assert trained.special_ids == SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4)
    assert trained.tokens(range(5)) == list(SPECIAL_TOKENS)


@pytest.mark.parametrize("min_freq", [1, 3, 5])
def test_min_freq(min_freq):
    texts = [" ".join(word for word, count in (("one", 1), ("three", 3), ("five", 5)) if i < count) for i in range(5)]
    tokenizer = train_word(texts, CorpusConfig(min_freq=min_freq))
    assert set(tokenizer.backend.get_vocab()) - set(SPECIAL_TOKENS) == {
        word for word, count in (("one", 1), ("three", 3), ("five", 5)) if count >= min_freq
    }


def test_vocab_size_cuts_off(kind):
    for size in (60, 100, 1000):
        tokenizer = TRAINERS[kind](wikitext_sentences()[:3000], CorpusConfig(vocab_size=size))
        assert tokenizer.vocab_size <= size
        if kind == "word":
            assert tokenizer.vocab_size == size
    assert (tokenizer.vocab_size == 1000) == (kind != "char")


def test_a_vocabulary_too_small_for_a_letter():
    with pytest.raises(InputError, match=r"fits into 6 tokens: give more text, .* or a larger --vocab-size$"):
        train_wordpiece(wikitext_sentences()[:3000], CorpusConfig(vocab_size=6))


def test_every_frequent_character_has_a_token():
    """So only words with rare characters are unknown."""
    counts = Counter(letter for sentence in wikitext_sentences() for letter in sentence.lower() if letter != " ")
    vocabulary = train_wordpiece(wikitext_sentences(), CorpusConfig()).backend.get_vocab()
    assert {letter for letter, count in counts.items() if count >= 50 and letter.isascii()} <= set(vocabulary)


def test_wordpiece_continuations():
    tokenizer = train_wordpiece(TEXTS, CorpusConfig(min_freq=5))
    tokens = tokenizer.tokens(range(tokenizer.vocab_size))
    assert tokenizer.continuation.tolist() == [token.startswith("##") for token in tokens]
    assert tokenizer.continuation.any()
    assert not train_word(["##a b"], CorpusConfig(min_freq=1)).continuation.any()


SAME = """
import hashlib, json, sys
from bertfast.config import CorpusConfig
from bertfast.data.tokenizer import train_word, train_wordpiece
texts = json.load(sys.stdin)
for train in (train_word, train_wordpiece):
    for min_freq in (1, 2):
        print(hashlib.sha256(train(texts, CorpusConfig(min_freq=min_freq)).backend.to_str().encode()).hexdigest())
"""


def test_the_same_text_gives_the_same_ids():
    """Over processes, whose hash tables have other seeds, and with other words first."""
    texts = wikitext_sentences()[:1500]
    outputs = set()
    for seed, order in (("1", texts), ("2", texts), ("3", texts[::-1])):
        done = subprocess.run(
            [sys.executable, "-c", SAME],
            input=json.dumps(order),
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_special_tokens_in_a_text_are_not_learnt_as_words(trained):
    assert not {"[mask]s", "and[SEP]more", "[unk]"} & set(trained.backend.get_vocab())
    assert trained.encode("a [MASK]")[0][-2:] == [4, 3]


@pytest.mark.parametrize("texts", [[], [""], ["once only"]])
def test_too_little_text(kind, texts):
    with pytest.raises(InputError, match=r"occurs 5 times.*: give more text.* a lower --min-freq"):
        TRAINERS[kind](texts, CorpusConfig())


def test_more_distinct_words_than_are_kept_in_mind(kind, monkeypatch):
    whole = TRAINERS[kind](TEXTS, CorpusConfig(min_freq=1)).backend.to_str()
    monkeypatch.setattr("bertfast.data.tokenizer._PIECES", 3)
    assert TRAINERS[kind](TEXTS, CorpusConfig(min_freq=1)).backend.to_str() == whole


def test_counts_beyond_64_bits_and_a_sample_in_proportion(monkeypatch):
    """As many times as many words, and of these a sample of the original size: the same vocabulary."""
    words = count_words(wikitext_sentences(), "wordpiece", True)
    expected = wordpiece_tokenizer(words, CorpusConfig()).backend.to_str()
    monkeypatch.setattr("bertfast.data.tokenizer._SAMPLE", words.total())
    for times in (1, 1 << 30, 1 << 60):
        many = Counter({word: count * times for word, count in words.items()})
        assert sampled_share(many) == 1 / times
        assert wordpiece_tokenizer(many, CorpusConfig(min_freq=5 * times)).backend.to_str() == expected
    many = Counter({word: count << 60 for word, count in words.items()})
    ours = word_tokenizer(many, CorpusConfig(min_freq=5 << 60)).backend.to_str()
    assert ours == word_tokenizer(words, CorpusConfig()).backend.to_str()


def test_a_sample_has_the_most_frequent_words(monkeypatch):
    monkeypatch.setattr("bertfast.data.tokenizer._SAMPLE_DISTINCT", 2)
    words = Counter({"abab": 9, "abcd": 8, "xyxy": 7})
    vocabulary = wordpiece_tokenizer(words, CorpusConfig(min_freq=1)).backend.get_vocab()
    assert {"abab", "abcd", "x", "##y"} <= set(vocabulary)
    assert not {"xy", "##xy"} & set(vocabulary)


def test_the_rarest_words_are_forgotten(monkeypatch):
    words = Counter({"a": 5, "b": 4, "c": 3, "d": 2, "e": 2, "f": 1})
    for order in (1, -1):
        few = Counter(dict(list(words.items())[::order]))
        forget_rarest(few, 6)
        assert few == words
        forget_rarest(few, 5)
        assert few == {"a": 5, "b": 4}
    monkeypatch.setattr("bertfast.data.tokenizer._PIECES", 1000)
    whole = count_words(wikitext_sentences(), "word", True)
    monkeypatch.setattr("bertfast.data.tokenizer._WORDS", 2000)
    bounded = count_words(wikitext_sentences(), "word", True)
    assert len(bounded) <= 2000 + 1000
    for word, count in whole.most_common(50):  # what was counted of a word before it was forgotten is lost
        assert 0.95 * count <= bounded[word] <= count
    for at_once in (2, 50, 100_000):  # the same are forgotten, however many texts come at a time
        counter = WordCounter("word", True)
        for texts in batched(wikitext_sentences(), at_once):
            counter.add(texts, Counter(itertools.chain.from_iterable(text.split(" ") for text in texts)))
        assert counter.words() == bounded


# ---- ids


@settings(max_examples=300)
@given(text=unicode_text)
def test_remembered_pieces_change_nothing(trained, text):
    assert trained.parts_at_spaces
    [expected] = trained.backend.encode_batch_fast([text], add_special_tokens=False)
    assert trained.encode_sentences([text, text]) == [expected.ids, expected.ids]
    assert [id for piece in trained.encode_pieces(text.split(" ")) for id in piece.ids] == expected.ids


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
    ids, types = trained.encode("the quick", "fox")
    assert trained.tokens(ids)[0] == "[CLS]"
    assert [id for id in ids if id in (2, 3)] == [2, 3, 3]
    first = ids.index(3) + 1
    assert types == [0] * first + [1] * (len(ids) - first)
    assert trained.encode("the quick") == (ids[:first], [0] * first)
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
    ours = [real.encode(a, b) for a, b in itertools.pairwise(texts)]
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


@settings(max_examples=200)
@given(text=unicode_text, pair=unicode_text.filter(bool))  # to transformers an empty pair is none
def test_autotokenizer_gives_the_same_ids_of_any_text(transformers, trained, tmp_path_factory, text, pair):
    folder = tmp_path_factory.getbasetemp() / f"tokenizer-{id(trained)}"
    if not folder.exists():
        folder.mkdir()
        trained.save(folder, 64)
        AUTO[folder] = auto(transformers, folder)
    theirs = AUTO[folder]
    assert theirs(text)["input_ids"] == trained.encode(text)[0]
    both = theirs(text, pair)
    assert (both["input_ids"], both["token_type_ids"]) == trained.encode(text, pair)


AUTO: dict[Path, object] = {}


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
    real = wikitext_sentences()
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
    """As BertTokenizerFast makes it of a vocabulary and its settings, or saved it: ids of any text and a whole file.

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
    lines = whole_file.read_text(encoding="utf-8").splitlines()
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
