"""Full stops that end no sentence, as in `M. Dupont`, and full stops that do, though sentencex's lists say otherwise.

An abbreviation that is also a word that often ends a sentence is in neither list of abbreviations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping


def _words(lists: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """By language, the words of a list that spaces separate."""
    return {language: frozenset(words.split()) for language, words in lists.items()}


# An entry in lower case matches in any case, a capitalised one only as it is written.
_BEFORE_A_NAME = _words(
    {
        "bg": "арх",
        "bn": "ড ডা মো মি প্রফে",
        "ca": "St Mn Pl pàg Excm",
        "de": "hrn ing frl hrsg pfr hptm oblt dipl gebr frhr bf hl kgl abb tab kap bd abs anm aufl bez dir fa bhf geb "
        "verh engl frz franz griech ital lat röm russ span amerik österr preuß bayer schweiz dt städt staatl techn "
        "wiss zool bot allg ehem eigtl einschl entspr exkl inkl insb stellv urspr versch wg zzgl gest",
        "el": "καθ αγ αρ σελ κεφ εικ οδ λεωφ δηλ βλ",
        "en": "figs vol vols ch chs eq eqs sect sects nos atty approx incl viz Wm Geo Chas Thos Ft",
        "es": "D S sras srtas dres dña profa cnel tte sgto mons fr ilmo ilma excma rev rvdo pbro",
        "fi": "hra rva nti tri ks nro St",
        "fr": "M mm mme mmes mlle mlles mgr dr drs pr prof me ste gén cdt capt lt sgt bd St Col",
        "hi": "डॉ प्रो श्री पं कु",
        "it": "S magg gent pag sigg Ten",
        "nl": "mevr mw mej ds jhr kol kap lt afb past",
        "pl": "mgr inż hab św bł ks gen płk mjr kpt por sierż dr nr rys tab art ust pkt tzw tj ok ur zm woj pow al os "
        "pl tow red str bp abp kard hr sz cz",
        "pt": "D S srta srtas profa profs arq cel ten exma ilmo ilma mons sta trav pça pág vol núm pe Cap Fr Ir Des "
        "Min Av séc",
        "ru": "св корп табл гл ст ср напр доц оз обл лейт ред изд пос дер пл дж",
        "sk": "tab kap čl plk kpt mjr arch bl",
        "uk": "просп корп табл тов смт",
    }
)
# Before a number only: other words may follow them at the beginning of a sentence.
_BEFORE_A_NUMBER = _words(
    {
        "en": "art app refs sec secs para paras suppl sched eqn eqns thm def prop fn",
        "pl": "godz",
        "ru": "рис",
    }
)
# Words on sentencex's lists of abbreviations. In lower case, and before a capital, they are these words.
_END_SENTENCES = _words(
    {
        "ca": "no mar art auto",
        "da": "nat ned to form fin da par port",
        "de": "mich dir me art Art",
        "en": "me no may miss app art ok",
        "es": "bien no auto mar sobre super",
        "it": "me te lo la ci vi ne no mai via bar re fa so sa su fu va sai iva mare gas film",
        "nl": "dat hand pas me best man",
        "sk": "tu no",
    }
)
# A word with a capital, not a code such as "P4333" or "VII", and some words of one letter.
_CAPITAL = re.compile(r"[\"“„«‘']?[^\W\d_a-zß-öø-ÿ]['’]?[a-zß-öø-ÿ]")
_ONE_LETTER = {"en": re.compile(r"[\"“‘']?[AI]\s"), "es": re.compile(r"[AYEO]\s"), "it": re.compile(r"[ÈEAOI]\s")}
# In English, sentencex finds no sentence end before "I" and contractions, nor after a number with a unit.
_ENGLISH_END = re.compile(r"[!?][!?.]*['\"’”)]*\s+\Z")
_ENGLISH_I = re.compile(r"I\b(?!\.)")
_CONTRACTION = re.compile(
    r"(?:I|It|That|He|She|We|They|You|There|What|Let|Who|Here|Where|How|Don|Can|Didn|Doesn|Isn|Wasn|Couldn|Won)"
    r"['’][a-z]{1,2}\b"
)
_AMOUNT = re.compile(r"\d\s?[hgml]\.\s+\Z")
_OPENING = re.compile(r"(?:The|Then|This|These|They|There|After|It|We|He|She|I|In|All|No)\b(?!\.)")
# On sentencex's list, and never words of their own.
_NO_WORDS = frozenset(("vs", "lt", "st", "cf", "ca"))
# Words that begin many sentences and few names: "la vitamine C. Elle", unlike "J. Verne". For English, sentencex knows
# such words itself. In a language without a list here, a single capital letter ends no sentence.
_BEGIN_SENTENCES = _words(
    {
        "es": "el la los las un una él ella es se en con por para si no este esta esto pero y",
        "fr": "le la les l un une des il elle ils elles on ce c cette ces nous vous je dans en pour si mais et",
        "it": "il lo la i gli le l un una è si in con per se non questo questa ma e",
        "pl": "to ten ta on ona ono oni jest w na z do po dla jeśli nie ale i a",
        "pt": "o a os as um uma ele ela é em no na com por para se não este esta isto mas e",
        "ru": "он она оно они это этот эта я мы в на с по для если не но и а",
    }
)
_FIRST_WORD = re.compile(r"[^\W\d_]+(?![\w.])")
_LAST_WORD = re.compile(r"(?:(?<![\w.-])|(?<=\.-))([^\W\d_]+)\.\s+\Z")
# In the scripts of India, signs that Python does not count among letters belong to words.
_INDIC = frozenset(("bn", "gu", "hi", "kn", "ml", "mr", "pa", "ta", "te"))
_INDIC_LAST_WORD = re.compile(r"(?<![\u0900-\u0dff.-])([\u0900-\u0dff]+)\.\s+\Z")
# German capitalises the nouns that follow ordinals: "im 18. und 19. Jahrhundert".
_ORDINAL = re.compile(
    r"\b(?:der|die|das|den|dem|des|im|am|vom|zum|zur|beim|ins|ans|(?:[dkms]?ein|ihr|unser|dies|jed)e[mnrs]?)"
    r"\s+(?:\d{1,2}\.\s+(?:und|oder|bis)\s+(?:zum\s+)?)?\d{1,2}\.\s+\Z",
    re.IGNORECASE,
)
_DAY = re.compile(r"(?<![\d.])\d{1,2}\.\s+\Z")
_DATED = re.compile(
    r"(?:Januar|Jänner|Februar|Feber|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember|Jahrhunderts?|"
    r"Auflage|Klasse)\b|(?:Jan|Feb|Apr|Aug|Sept?|Okt|Nov|Dez|Jh)\."
)
# Polish and Russian, among others, shorten the word after a number: "1999 r. przyjechał", "5 млн. рублей".
_COUNTED = re.compile(r"\d\s?[^\W\d_]{1,4}\.\s+\Z")
END = 60
"""Characters at a text's end, enough for what these patterns match."""


def expects_more(before: str, after: str, language: str) -> bool:
    """Whether `before`, up to a full stop and a space, ends in an abbreviation, an initial or an ordinal."""
    end = before[-END:]
    if language == "de" and (_ORDINAL.search(end) or (_DAY.search(end) and _DATED.match(after))):
        return True
    if language != "en" and after[:1].islower() and _COUNTED.search(end):
        return True
    last_word = (_INDIC_LAST_WORD if language in _INDIC else _LAST_WORD).search(end)
    if last_word is None:
        return False
    word = last_word[1]
    if not _BEFORE_A_NAME.get(language, frozenset()).isdisjoint((word, word.lower())):
        return True
    if after[:1].isdigit() and word.lower() in _BEFORE_A_NUMBER.get(language, ()):
        return True
    if len(word) > 1 or word.islower() or language == "en":
        return False
    first_word = _FIRST_WORD.match(after)
    return first_word is None or first_word[0].lower() not in _BEGIN_SENTENCES.get(language, frozenset())


def ends_sentence(before: str, after: str, language: str) -> bool:
    """Whether a sentence ends with `before`, which ends in a stop and a space: asked where sentencex finds no end."""
    end = before[-END:]
    last_word = _LAST_WORD.search(end)
    if last_word and last_word[1] in _END_SENTENCES.get(language, ()):
        one_letter = _ONE_LETTER.get(language)
        return _CAPITAL.match(after) is not None or (one_letter is not None and one_letter.match(after) is not None)
    if language != "en":
        return False
    if _ENGLISH_I.match(after) and _ENGLISH_END.search(end):
        return True
    if _CONTRACTION.match(after):
        word = last_word[1] if last_word else ""
        known = word in _NO_WORDS or word in _BEFORE_A_NAME["en"] or word in _BEFORE_A_NUMBER["en"]
        return len(word) > 1 and word.islower() and not known
    return _OPENING.match(after) is not None and _AMOUNT.search(end) is not None
