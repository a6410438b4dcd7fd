"""Full stops that end no sentence. test_sentences.py has whole texts with them."""

from __future__ import annotations

import unicodedata

import pytest

from bertfast.data.abbreviations import (
    _BEFORE_A_NAME,
    _BEFORE_A_NUMBER,
    _BEGIN_SENTENCES,
    _END_SENTENCES,
    ends_sentence,
    expects_more,
)
from bertfast.data.sentences import LANGUAGES


@pytest.mark.parametrize(
    ("language", "before", "after", "expected"),
    [
        ("fr", "Voici M. ", "Dupont", True),
        ("fr", "Voici mme. ", "Dupont", True),
        ("fr", "Voici Mme. ", "Dupont", True),
        ("fr", "Voici MME. ", "Dupont", True),
        ("fr", "Il habite St. ", "Denis", True),
        ("fr", "Il habite st. ", "Denis", False),  # only capitalised
        ("fr", "Il vient. ", "Dupont", False),
        ("en", "See figs. ", "3 and 4", True),
        ("de", "See figs. ", "3 and 4", False),  # each language has its own
        ("xx", "See figs. ", "3 and 4", False),
        # What stands before: the whole word, a full stop, and space.
        ("fr", "Voici M.", "Dupont", False),
        ("fr", "Voici M ", "Dupont", False),
        ("fr", "M. ", "Dupont", True),
        ("fr", "Voici xM. ", "Dupont", False),
        ("fr", "Voici a.M. ", "Dupont", False),
        ("fr", f"{'mot ' * 100}M. ", "Dupont", True),
        # Initials: a capital letter, unless a word follows that begins sentences.
        ("fr", "Le roman de J. ", "Verne", True),
        ("fr", "Jean J.-P. ", "Verne", True),
        ("fr", "Le roman de j. ", "Verne", False),
        ("fr", "La vitamine C. ", "Elle", False),
        ("fr", "La vitamine C. ", "L'ours", False),
        ("fr", "La vitamine C. ", "Ellen", True),
        ("fr", "La vitamine C. ", "12", True),
        ("de", "Vitamin C. ", "Elle", True),  # no such words are known for it
        ("en", "The novel by J. ", "Verne", False),  # sentencex knows English initials itself
        # German ordinals.
        ("de", "Im 18. ", "Jahrhundert", True),
        ("de", "im 18. und 19. ", "Jahrhundert", True),
        ("de", "Bei seinem 3. ", "Versuch", True),
        ("de", "Es waren 18. ", "Jahrhunderte", False),
        ("de", "Das war im Jahr 1918. ", "Danach", False),
        ("fr", "Im 18. ", "Jahrhundert", False),
        ("de", "Am Montag, 3. ", "Februar", True),
        ("de", "Ende 19. ", "Jahrhundert", True),
        ("de", "Es waren 3. ", "Maiers", False),
        ("de", "Am Montag, 13.3. ", "Februar", False),
        # Before a number only.
        ("en", "See app. ", "3", True),
        ("en", "I love this app. ", "Works", False),
        ("pl", "o godz. ", "8", True),
        ("pl", "Trwało to 5 godz. ", "Potem", False),
        ("ru", "Они едят рис. ", "Это", False),
        ("ru", "См. рис. ", "3", True),
        # A short word after a number, and the sentence goes on in lower case.
        ("pl", "W 1999 r. ", "przyjechał", True),
        ("ru", "Это 5 млн. ", "рублей", True),
        ("pl", "W 1999 r. ", "Potem", False),
        ("en", "he is 5 now. ", "it was", False),  # English is often written without capitals
        # Scripts without capitals.
        ("hi", "प्रो. ", "वर्मा", True),
        ("hi", "वह गया. ", "फिर", False),
        ("bn", "মো. ", "আলী", True),
        ("ar", "د. ", "أحمد", True),
        ("de", "", "", False),
    ],
)
def test_what_expects_more(language, before, after, expected):
    assert expects_more(before, after, language) is expected


@pytest.mark.parametrize(
    ("language", "before", "after", "expected"),
    [
        ("en", "He gave it to me. ", "I took it.", True),
        ("en", "He gave it to me. ", "“I know”", True),
        ("en", "as in no. ", "5", False),
        ("en", "See No. ", "Seven", False),  # only in lower case
        ("en", "(Sigma, cat. no. ", "P4333)", False),
        ("en", "see art. ", "VII of the treaty", False),
        ("de", "nach Art. ", "II GG", False),
        ("de", "dieser Art. ", "Die Blätter", True),
        ("it", "Lo so. ", "È vero.", True),
        ("en", "It is so vs. ", "That's it", False),
        ("en", "approx. ", "It's", False),
        ("en", "Take 100 g. ", "Butter", False),
        ("en", "Take 100 g. ", "Then wait.", True),
        ("de", "Er sah mich. ", "Der Mann kam.", True),
        ("fr", "He gave it to me. ", "I took it.", False),
        ("it", "Due anni fa. ", "Il re", True),
        ("en", "So good!! ", "I love it.", True),
        ("en", "So good!! ", "I. Newton", False),
        ("en", "It was late. ", "It's fine.", True),
        ("en", "This is Mr. ", "I'm here", False),
        ("en", "a. ", "It's", False),
        ("en", "Kept for 24 h. ", "The cells died.", True),
        ("en", "Kept for 24 h. ", "IBM", False),
        ("de", "Kept for 24 h. ", "The cells died.", False),
        ("en", "", "", False),
    ],
)
def test_where_a_sentence_ends(language, before, after, expected):
    assert ends_sentence(before, after, language) is expected


def test_every_language_has_sentence_rules():
    """Otherwise its words would never be found. Nor would a word in the wrong case."""
    assert {*_BEFORE_A_NAME, *_BEFORE_A_NUMBER, *_BEGIN_SENTENCES, *_END_SENTENCES} <= set(LANGUAGES)
    assert all(word == word.lower() for words in _BEGIN_SENTENCES.values() for word in words)
    for words in _BEFORE_A_NAME.values():
        assert not {word for word in words if any(unicodedata.category(each)[0] not in "LM" for each in word)}
        assert not {word for word in words if word != word.lower() and word.lower() in words}
