"""Full stops that end no sentence. test_sentences.py has whole texts with them."""

from __future__ import annotations

import pytest

from bertfast.data.abbreviations import _BEFORE_A_NAME, _BEGIN_SENTENCES, expects_more
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
        ("de", "", "", False),
    ],
)
def test_what_expects_more(language, before, after, expected):
    assert expects_more(before, after, language) is expected


def test_every_language_has_sentence_rules():
    """Otherwise its words would never be found. Nor would a word in the wrong case."""
    assert {*_BEFORE_A_NAME, *_BEGIN_SENTENCES} <= set(LANGUAGES)
    assert all(word == word.lower() for words in _BEGIN_SENTENCES.values() for word in words)
    for words in _BEFORE_A_NAME.values():
        assert not {word for word in words if "." in word or not word.isalpha()}
        assert not {word for word in words if word != word.lower() and word.lower() in words}
