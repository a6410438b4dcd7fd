"""Abbreviations that precede a name or a number, and so end no sentence: `M. Dupont`.

They complete sentencex's own lists. An abbreviation that is also a word that can end a sentence is left out.
"""

from __future__ import annotations

import re

# An entry in lower case matches in any case, a capitalised one only as it is written.
_BEFORE_A_NAME = {
    language: frozenset(words.split())
    for language, words in {
        "bg": "арх",
        "ca": "St Mn Pl pàg Excm",
        "de": "hrn ing frl hrsg pfr hptm oblt dipl gebr frhr bf hl kgl abb tab kap bd abs anm aufl bez dir fa bhf geb "
        "verh engl frz franz griech ital lat röm russ span amerik österr preuß bayer schweiz dt städt staatl techn "
        "wiss zool bot allg ehem eigtl einschl entspr exkl inkl insb stellv urspr versch wg zzgl gest",
        "el": "καθ αγ αρ σελ κεφ εικ οδ λεωφ δηλ βλ",
        "en": "figs vol vols ch chs eq eqs sect sects nos art app atty approx incl",
        "es": "D S sras srtas dres dña profa cnel tte sgto mons fr ilmo ilma excma rev rvdo pbro",
        "fi": "hra rva nti tri ks nro St",
        "fr": "M mm mme mmes mlle mlles mgr dr drs pr prof me ste gén cdt capt lt sgt bd St Col",
        "it": "S magg gent pag sigg Ten",
        "nl": "mevr mw mej ds jhr kol kap lt afb past",
        "pl": "mgr inż hab św bł ks gen płk mjr kpt por sierż dr nr rys tab art ust pkt tzw tj ok ur zm woj pow al os "
        "pl tow red str bp abp kard hr sz cz",
        "pt": "D S srta srtas profa profs arq cel ten exma ilmo ilma mons sta trav pça pág vol núm pe Cap Fr Ir Des "
        "Min",
        "ru": "св корп табл гл ст ср напр доц оз обл лейт ред изд пос дер пл дж",
        "sk": "tab kap čl plk kpt mjr arch bl",
        "uk": "просп корп табл тов смт",
    }.items()
}
# Words that begin many sentences and few names: "la vitamine C. Elle", unlike "J. Verne". For English, sentencex knows
# such words itself. In a language without a list here, a single capital letter ends no sentence.
_BEGIN_SENTENCES = {
    language: frozenset(words.split())
    for language, words in {
        "es": "el la los las un una él ella es se en con por para si no este esta esto pero y",
        "fr": "le la les l un une des il elle ils elles on ce c cette ces nous vous je dans en pour si mais et",
        "it": "il lo la i gli le l un una è si in con per se non questo questa ma e",
        "pl": "to ten ta on ona ono oni jest w na z do po dla jeśli nie ale i a",
        "pt": "o a os as um uma ele ela é em no na com por para se não este esta isto mas e",
        "ru": "он она оно они это этот эта я мы в на с по для если не но и а",
    }.items()
}
_FIRST_WORD = re.compile(r"[^\W\d_]+(?![\w.])")
_LAST_WORD = re.compile(r"(?:(?<![\w.-])|(?<=\.-))([^\W\d_]+)\.\s+\Z")
# German capitalises the nouns that follow ordinals: "im 18. und 19. Jahrhundert".
_ORDINAL = re.compile(
    r"\b(?:der|die|das|den|dem|des|im|am|vom|zum|zur|beim|ins|ans|(?:[dkms]?ein|ihr|unser|dies|jed)e[mnrs]?)"
    r"\s+(?:\d{1,2}\.\s+(?:und|oder|bis)\s+(?:zum\s+)?)?\d{1,2}\.\s+\Z",
    re.IGNORECASE,
)
# Characters at a text's end, enough for what these patterns match.
_END = 60


def expects_more(before: str, after: str, language: str) -> bool:
    """Whether `before`, up to a full stop and a space, ends in an abbreviation, an initial or an ordinal."""
    end = before[-_END:]
    last_word = _LAST_WORD.search(end)
    if last_word is None:
        return language == "de" and _ORDINAL.search(end) is not None
    word = last_word[1]
    if not _BEFORE_A_NAME.get(language, frozenset()).isdisjoint((word, word.lower())):
        return True
    if len(word) > 1 or not word.isupper() or language == "en":
        return False
    first_word = _FIRST_WORD.match(after)
    return first_word is None or first_word[0].lower() not in _BEGIN_SENTENCES.get(language, frozenset())
