"""Sentences of every form of text, against the notebook and against sentences by hand."""

from __future__ import annotations

import bz2
import gzip
import importlib.metadata
import json
import lzma
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.notebook import import_d2l, notebook_paragraphs, wikitext_folder
from support.refusal import refusal
from support.wikitext import WIKITEXT

from bertfast.config import CorpusConfig
from bertfast.data.load import load_corpus
from bertfast.data.readers import lines
from bertfast.data.sentences import DOCUMENT, MARKS, PARAGRAPH, PART, PIECE, sentences
from bertfast.data.sources.find import find_source
from bertfast.data.text_file import TextFile
from bertfast.errors import InputError


def documents(path: Path, form: str, documents: str = "auto") -> list[list[str]]:
    return documents_of(TextFile(path, form, documents=documents))


def documents_of(file: TextFile) -> list[list[str]]:
    """The file's sentences by document, without empty documents, which the corpus drops."""
    found: list[list[str]] = [[]]
    for sentence in sentences(file):
        if sentence == DOCUMENT:
            found.append([])
        elif sentence not in MARKS:
            found[-1].append(sentence)
    return [document for document in found if document]


def source(path: Path, **settings: Any):
    return find_source(path, CorpusConfig(**settings), path / "cache")


@pytest.mark.parametrize(
    ("name", "form", "package"),
    [
        ("prose.txt", "plain", "sentencex"),
        ("prose.txt", "wikitext", None),
        ("prose.txt", "lines", None),
        ("texts.parquet", "lines", "pyarrow"),
        ("texts.txt.zst", "lines", "pyarrow"),
    ],
)
def test_a_missing_package_is_named_only_if_it_is_needed(write, tmp_path, monkeypatch, name, form, package):
    of_installed = importlib.metadata.version

    def version(name: str) -> str:
        if name in missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return of_installed(name)

    missing = ("sentencex", "pyarrow")
    for each in missing:
        monkeypatch.setitem(sys.modules, each, None)
    monkeypatch.setattr(importlib.metadata, "version", version)
    path, config = write("It rains . It snows .\nIt hails . It pours .", name), CorpusConfig(text_form=form, min_freq=1)
    if package is None:
        assert load_corpus(path, config=config, cache_dir=tmp_path / "cache").num_sentences
        return
    with pytest.raises(InputError, match=f"needs the package {package}: pip install {package}$"):
        load_corpus(path, config=config, cache_dir=tmp_path / "cache")


# ---- WikiText


def test_wikitext_is_read_as_in_the_notebook(tmp_path, monkeypatch):
    path = tmp_path / "wiki.train.tokens"
    path.write_bytes(b"".join((wikitext_folder() / name).read_bytes() for name in ("test.txt", "valid.txt")))
    monkeypatch.setattr(import_d2l().random, "shuffle", lambda paragraphs: None)
    ours = [[sentence.lower().split() for sentence in document] for document in documents(path, "wikitext")]
    theirs = [[sentence.replace("<unk>", "[unk]").split() for sentence in p] for p in notebook_paragraphs()]
    assert ours == [[sentence for sentence in paragraph if sentence] for paragraph in theirs]


@given(st.lists(st.lists(st.sampled_from(["a", "Bc", ".", " . ", " ", "<unk>", "= x =", "\t"])).map("".join)))
def test_any_wikitext_is_read_as_in_the_notebook(tmp_path_factory, content):
    d2l = import_d2l()
    folder = tmp_path_factory.mktemp("wiki")
    path = folder / "wiki.train.tokens"
    path.write_text("".join(f"{line}\n" for line in content))
    theirs = [[sentence.replace("<unk>", "[unk]").split() for sentence in p] for p in d2l._read_wiki(str(folder))]
    theirs = [kept for paragraph in theirs if (kept := [sentence for sentence in paragraph if sentence])]
    ours = [[sentence.lower().split() for sentence in document] for document in documents(path, "wikitext")]
    assert sorted(ours) == sorted(theirs)


def test_wikitext_by_hand(write):
    assert documents(write(WIKITEXT), "wikitext") == [["A lobster is big", "It is [UNK]", "It [UNK] ."]]


# ---- lines and prose


def test_lines(write):
    path = write("One. \n  Two.\n\n\n \nThree.\nFour.")
    assert documents(path, "lines") == [["One.", "Two."], ["Three.", "Four."]]


sentence_lists = st.lists(st.lists(st.text("ab .é漢\u2028\x0b", min_size=1).map(str.strip).filter(bool), min_size=1))


@given(sentence_lists)
def test_any_sentences_as_lines(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("lines") / "some.txt"
    path.write_text("\n\n".join("\n".join(document) for document in texts), encoding="utf-8", newline="\n")
    assert documents(path, "lines") == texts


def test_prose(write):
    path = write("Mr. Smith went to\nWashington. He came back!\n\nIs it 3.5? Yes.\nIt is")
    expected = [["Mr. Smith went to Washington.", "He came back!"], ["Is it 3.5?", "Yes.", "It is"]]
    assert documents(path, "plain", "paragraph") == expected
    assert documents(path, "plain") == [expected[0] + expected[1]]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ["See os.Path, www.Example.com and self.X.", "It works.", "Use f(x).Then of node.Js!"]),
        ("en", ["They use e.g. The Book (i.e. The First).", "It began at 5 a.m.", "The end."]),
        ("en", ['He said "No."', "Then he left."]),
        ("de", ["Das ist z.B. Der Hund.", "Siehe www.Beispiel.De und os.Path."]),
        ("fr", ["Voir numpy.Array.", "Fin !"]),
        ("hi", ["यह है।", "वह है।", "www.Example.com"]),
        ("ja", ["これは。", "それは！", "本.Aは os.Path です。"]),
        ("zh", ["我们。", "你好！", "是吗？", "好"]),
    ],
)
def test_no_boundary_within_a_name(write, language, expected):
    """In scripts with spaces between words, a full stop without one ends no sentence."""
    for content in (" ".join(expected), "\n".join(expected)) if language not in ("zh", "ja") else ["".join(expected)]:
        file = TextFile(write(content), "plain")
        assert [each for each in sentences(file, language) if each not in MARKS] == expected


# Sentences with abbreviations, initials and ordinals that end no sentence, and boundaries that look like them.
ABBREVIATIONS = {
    "bg": ["Арх. Иванов и д-р Петров дойдоха.", "А. Христов пише.", "Отидоха си.", "Бяха в гр. София."],
    "ca": ["Mn. Cinto Verdaguer és mort.", "El Sr. Puig i la Sra. Vila viuen a la Pl. Catalunya.", "Adeu."],
    "da": ["Hr. Jensen og fru Holm kom.", "H. C. Andersen skrev.", "Prof. Bohr var dr. Holms ven.", "De gik."],
    "de": [
        "Hr. Müller und Frl. Maier trafen Dr. Huber, den Dipl.-Ing. Schulz und Prof. Dr. Lang.",
        "Im 19. Jahrhundert und vor dem 2. Weltkrieg, z. B. Am 3. Oktober, war es so.",
        "Anna Maier, geb. Schulz, verh. Lang, war engl. Königin.",
        "Siehe Abb. Zwei, Kap. III und Bd. Eins.",
        "Das war 1945.",
        "Im 18. und 19. Jahrhundert gab es seinen 3. Sieg.",
        "Die Vorgabe ist 1.",
        "Siehe die Beispiele 2 und 3.",
        "Er kostet 3,50.",
        "Der hl. Franz und J.-P. Sartre, E. T. A. Hoffmann usw. gehen.",
        "Das war alles.",
        "Ende.",
    ],
    "el": ["Ο Καθ. Παπαδόπουλος μένει στην οδ. Ερμού.", "Ο Ν. Καζαντζάκης έγραψε.", "Τέλος."],
    "en": [
        "Mr. Smith, Mrs. Jones, Dr. Lee and Prof. Gen. Hill met J. R. R. Tolkien and J. Smith.",
        "See Fig. 3, Vol. Two, Ch. Four and Figs. A to C.",
        "This is Plan A.",
        "Then comes Plan B.",
        "It was he.",
    ],
    "es": [
        "D. Juan y Dña. Ana vieron al Sr. García, a la Sra. López y a las Sras. Ruiz.",
        "El Tte. Pérez y Mons. Romero hablaron con el Dr. Gil.",
        "G. García Márquez escribió.",
        "Eran del siglo V.",
        "El fin.",
        "Fin.",
    ],
    "fi": ["Hra. Virtanen ja rva. Korhonen tulivat.", "J. Sibelius sävelsi.", "Ks. Liite.", "Loppu."],
    "fr": [
        "M. Dupont est arrivé.",
        "Mme. Durand et MM. Martin ont vu M. Petit, le Dr. Roux, Mgr. Blanc et Me. Vergès.",
        "J.-P. Sartre et A. Camus vivaient bd. Raspail à St. Germain.",
        "C'est lui, avec M. Le Pen.",
        "Il a de la vitamine C.",
        "Elle lit A. Dumas et le code KOI8-R.",
        "Plus rien.",
        "Fin.",
    ],
    "it": [
        "S. Pietro e il Sig. Rossi, la Sig.ra Bianchi, il Dott. Verdi e il Magg. Neri.",
        "I. Calvino scrisse.",
        "È la vitamina C.",
        "La vide U. Eco.",
        "Fine.",
    ],
    "nl": ["Mevr. De Vries, dhr. Jansen en Ds. Bakker.", "H. Mulisch schreef.", "Hij was J. K. Boer.", "Einde."],
    "pl": [
        "Św. Jan, ks. Piotr i dr. Nowak byli przy al. Róż.",
        "S. Lem i Cz. Miłosz pisali.",
        "Gen. Anders i bp. Wolski mają plan B.",
        "To nic.",
        "Koniec.",
    ],
    "pt": [
        "D. Pedro, o Sr. Silva, a Sra. Costa, a Profa. Lima, o Pe. Vieira e S. João.",
        "F. Pessoa escreveu.",
        "Quero ir ao ponto A.",
        "O fim.",
        "Fim.",
    ],
    "ru": [
        "А. С. Пушкин и Дж. Лондон жили в г. Москва, на пл. Ленина.",
        "Св. Николай и доц. Иванов.",
        "Он сказал им.",
        "Это план Б.",
        "Он там.",
    ],
    "sk": ["Ing. Novák, plk. Kováč a arch. Jurkovič prišli.", "J. Kráľ písal.", "Koniec."],
    "uk": ["Т. Шевченко жив на просп. Перемоги, а тов. Іван у смт. Бориня.", "Кінець."],
}


@pytest.mark.parametrize("language", ABBREVIATIONS)
def test_no_boundary_after_an_abbreviation(write, language):
    expected = ABBREVIATIONS[language]
    for content in (" ".join(expected), "\n".join(expected)):
        found = sentences(TextFile(write(content), "plain"), language)
        assert [each for each in found if each not in MARKS] == expected


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        (
            "en",
            [
                "(1) It shall be lawful only if so.",
                "He shall show it.",
                "(2) He shall keep records.",
                "They shall be kept.",
            ],
        ),
        ("en", ["• One thing is here.", "Two things are there."]),
        ("en", ["a) One thing is here.", "Two things are there.", "b) It is so."]),
        (
            "en",
            ["State of the art.", "We show it.", "Thanks for having me.", "It's a pleasure.", "What?!", "I said so."],
        ),
        ("en", ["E.g. The book is here.", "It is so, i.e. The dog is there."]),
        ("ru", ["— Что? — спросила она.", "— Ничего.", "«Да!» — крикнул он."]),
        ("ru", ["— Что?", "— Ничего."]),
        ("es", ["—¿Qué quieres? —preguntó ella.", "Todo está bien.", "El gato duerme."]),
        ("pl", ["– Co? – spytała.", "Było 3 tys. osób o godz. 8.", "Potem wyszedł."]),
        ("hi", ["डॉ. शर्मा आए।", "प्रो. वर्मा गए।"]),
        ("en", ["พ.ศ. 2542 น.ส.สมศรี"]),
        ("de", ["Er kam heim.", "»Wo bist du?«, fragte sie.", "»Hier.«"]),
        ("en", ["It returns a list.", ":class:`Foo` is used."]),
        ("en", ["“Come in! I waited. It's fine. He left,” he said.", "(Who knows? I don't. It's fine.)"]),
    ],
)
def test_boundaries_that_sentencex_misses_or_adds(write, language, expected):
    found = list(sentences(TextFile(write(" ".join(expected)), "plain"), language))
    assert found == [*expected, DOCUMENT]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("ja", ["「元気ですか？」と彼は聞いた。", "彼は答えた。", "「はい。」など。"]),
        ("zh", ["“好！”，他说。", "走了。"]),
    ],
)
def test_boundaries_without_spaces(write, language, expected):
    found = list(sentences(TextFile(write("".join(expected)), "plain"), language))
    assert found == [*expected, DOCUMENT]


def test_a_line_is_a_paragraph(write):
    content = "Introduction\nIt was dark. The rain fell.\nNobody came.\n\nThe end\n"
    path = write(content)
    plain, each = ([*sentences(TextFile(path, form, documents="parts"))] for form in ("plain", "paragraphs"))
    rain = ["It was dark.", "The rain fell."]
    end = [PART, "The end", PARAGRAPH, DOCUMENT]
    assert plain == ["Introduction It was dark.", "The rain fell.", "Nobody came.", PARAGRAPH, *end]
    assert each == [PART, "Introduction", PARAGRAPH, *rain, PARAGRAPH, "Nobody came.", PARAGRAPH, PART, *end]


def test_blank_lines_between_paragraphs_of_one_line_end_documents(write):
    path = write("One is here. It is so.\nTwo are here.\n\nThree are here.\n\n\nFour are here.\n")
    found = documents_of(TextFile(path, "paragraphs"))
    assert found == [["One is here.", "It is so.", "Two are here."], ["Three are here."], ["Four are here."]]
    assert documents(path, "paragraphs", documents="file") == [[sentence for each in found for sentence in each]]


def test_a_number_at_the_beginning_of_a_line_is_no_item(write):
    assert documents(write("It was the year of no.\n12. It was then aged\n18 years.\n"), "plain") == [
        ["It was the year of no. 12.", "It was then aged 18 years."]
    ]
    assert documents(write("Here are some.\n- One\n- Two\n"), "plain") == [["Here are some.", "- One", "- Two"]]
    assert documents(write("Do this.\n1. One\n2. Two\n"), "plain") == [["Do this.", "1. One", "2. Two"]]


def test_quoted_lines(write):
    assert documents(write("He said:\n> It was dark,\n> and late.\n>\n> > Was it?\n>>> x\n"), "plain") == [
        ["He said: It was dark, and late.", "Was it?", ">>> x"]
    ]
    assert documents(write("It is\n> 5 mg.\n"), "plain") == [["It is > 5 mg."]]


def test_a_block_of_code_is_a_paragraph(write):
    content = (
        "Run it:\n```python\nimport bertfast\n\nbertfast.train()\n```\nIt is `fast`.\n```not a fence``` but code.\n"
    )
    expected = [
        ["Run it:"],
        ["import bertfast"],
        ["bertfast.train()"],
        ["It is `fast`.", "```not a fence``` but code."],
    ]
    assert documents(write(content), "plain", "paragraph") == expected


def test_a_list_item_begins_a_sentence(write):
    listed = "It takes:\n- a bird\n  of prey\n* the lake. And rain\n\n1. First\n2) second\n\n• Ünd\n• 鳥\n"
    expected = ["It takes:", "- a bird of prey", "* the lake.", "And rain", "1. First", "2) second", "• Ünd", "• 鳥"]
    assert documents(write(listed), "plain") == [expected]
    dash = "It was a bird\n- a crane - and nobody knew of the year\n2. Or so it seemed."
    assert documents(write(dash), "plain")[0][0].startswith("It was a bird - a crane - and nobody knew")


def test_long_paragraphs_keep_their_sentences(write):
    """Prose is segmented in pieces, whose boundaries must not show."""
    expected = [f"This is sentence {i} of a paragraph that is {'very ' * (i % 50)}long." for i in range(400)]
    for content in (" ".join(expected), "\n".join(expected), "\n".join(" ".join(expected).split(" "))):
        assert documents(write(content), "plain") == [expected]


def test_the_end_of_a_long_paragraph_is_no_heading(write):
    """A short paragraph of one line without a stop is one; the last piece of a long one is not."""
    text = "It rains here every day. " * 82 + "And it snows"
    path = write(f"{text}\n\nA heading\n\n{text}\n")
    found = list(sentences(TextFile(path, "plain", documents="parts")))
    assert len(text) > PIECE
    assert [found[i + 1] for i, each in enumerate(found) if each == PART] == ["A heading"]


def test_an_item_with_hundreds_of_marks(write):
    text = "é) " * 650 + "e.g. it"
    assert list(sentences(TextFile(write(text), "plain"))) == [text, DOCUMENT]


@settings(max_examples=30)
@given(st.lists(st.text("ab", min_size=1), min_size=1, max_size=20), st.integers(0, 4000), st.integers(0, 9))
def test_text_without_a_boundary_is_divided_between_words(tmp_path_factory, words, repeats, length):
    path = tmp_path_factory.mktemp("plain") / "some.txt"
    content = " ".join([*words, "c" * length] * (repeats // len(words) + 1))
    path.write_text(content)
    [document] = documents(path, "plain")
    assert " ".join(document).split() == content.split()
    assert max(map(len, document)) <= PIECE


def test_a_word_longer_than_a_piece_is_divided(write):
    [document] = documents(write("x" * 5000), "plain")
    assert "".join(document) == "x" * 5000
    assert max(map(len, document)) <= PIECE


def test_the_end_of_a_file_ends_a_document(write):
    for form in ("wikitext", "lines", "plain"):
        assert list(sentences(TextFile(write("a . b"), form)))[-1] == ""


# ---- reading


def test_text_is_normalised_to_nfc(write):
    """Equivalent spellings become one; compatibility characters such as ligatures stay."""
    decomposed, angstrom, ligature = "cafe\u0301", "\u212b", "\ufb01"
    expected = [["café Å ﬁ."]]
    content = f"{decomposed} {angstrom} {ligature}."
    for name, form, written in [
        ("a.txt", "plain", content),
        ("a.txt", "lines", content),
        ("a.html", "plain", f"<p>{content}"),
        ("a.jsonl", "plain", json.dumps({"text": content})),
    ]:
        [file] = source(write(written, name), text_form=form).files
        assert documents_of(file) == expected
    [file] = source(write(f"{content} . b", "b.txt"), text_form="wikitext").files
    assert documents_of(file) == [["café Å ﬁ.", "b"]]


def test_byte_order_mark_and_windows_line_ends(write):
    assert documents(write(b"\xef\xbb\xbfOne.\r\nTwo.\r\n\r\nThree.\r\n"), "lines") == [["One.", "Two."], ["Three."]]


def test_reading_takes_little_memory(write, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 1 << 17)
    path = write(b"a line of words\n" * (1 << 17))
    tracemalloc.start()
    try:
        assert sum(1 for sentence in sentences(TextFile(path, "lines")) if sentence) == 1 << 17
        assert tracemalloc.get_traced_memory()[1] < 14 << 17  # the lines of a block; the text has 16 blocks
    finally:
        tracemalloc.stop()


def test_progress_counts_every_byte(write):
    path = write(WIKITEXT * 50)
    for form in ("wikitext", "lines", "plain"):
        sizes: list[int] = []
        list(sentences(TextFile(path, form), on_read=sizes.append))
        assert sum(sizes) == path.stat().st_size


def test_a_hyphen_at_the_end_of_a_line(write):
    content = "A well-\nknown news-\npaper, 1914-\n1918, a - \nb, the co-\nKing, short-\nand long-term."
    expected = "A well-known news-paper, 1914- 1918, a - b, the co- King, short- and long-term."
    assert documents(write(content), "plain") == [[expected]]


def test_lines_are_joined_by_a_space_only_in_scripts_that_use_it(write):
    path = write("我们今天\n去学校。\nผมไป\nโรงเรียน\nand then\nhome to 한국\n사람")
    assert "".join(documents(path, "plain")[0]) == "我们今天去学校。ผมไปโรงเรียน and then home to 한국 사람"


# ---- errors: one line that names the thing and the way out


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("content", "byte"),
    [(b"caf\xe9 au lait", 3), (b"\xef\xbb\xbfok\n\xff", 6), (b"ab\xc3", 2), (b"\xc3\xa9\xc3\xa9\xe2\x82x", 4)],
)
def test_not_utf8_names_the_byte(write, monkeypatch, block, content, byte):
    monkeypatch.setattr(lines, "BLOCK_BYTES", block)
    path = write(content)
    for form in ("wikitext", "lines", "plain"):
        message = refusal(documents, path, form)
        assert message.startswith(f"{path} is not UTF-8: byte {byte} (")
        mixed = "the file mixes encodings: convert only the rest"
        assert message.endswith(mixed if "é".encode() in content else "convert it, with iconv for example")


UTF16 = "UTF-16, by its zero bytes: convert it (iconv -f UTF-16 -t UTF-8), and give the result"


def test_a_binary_file(write, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 4)
    path = write(b"abcdefg\x00")
    assert refusal(documents, path, "plain") == (f"{path} is not text: byte 7 is zero; give UTF-8 text files")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (gzip.compress(b"Some words.", mtime=0), "compressed by gzip: give it a name that ends in .gz"),
        (bz2.compress(b"Some words."), "compressed by bzip2: decompress it, and give the result"),
        (lzma.compress(b"Some words."), "compressed by xz: decompress it, and give the result"),
        (b"PK\x03\x04\x14\x00\x00", "an archive, as .zip, .docx and .epub are: extract its text, and give the result"),
        (b"%PDF-1.7\n", "a PDF: extract its text, and give the result"),
        ("Some words.".encode("utf-16-le"), UTF16),
        ("Some words.".encode("utf-16-be"), UTF16),
    ],
    ids=["gzip", "bzip2", "xz", "zip", "pdf", "utf-16-le", "utf-16-be"],
)
def test_what_is_not_text_is_named(write, content, expected):
    path = write(content)
    assert refusal(documents, path, "plain") == f"{path} is {expected}"


def test_zeros_alone_are_no_utf16(write):
    path = write(bytes(20))
    assert refusal(documents, path, "plain") == f"{path} is not text: byte 0 is zero; give UTF-8 text files"


def test_a_missing_file(tmp_path):
    missing = tmp_path / "gone.txt"
    assert refusal(documents, missing, "plain") == f"cannot read {missing}: No such file or directory"


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from(["a b. C d.", "é", "", "x . y", "\ufeff"]), max_size=8),
    st.lists(st.sampled_from(["Last.", "", "z . w . v"]), max_size=4),
)
def test_a_span_is_read_as_a_file_of_its_own(tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("spans")
    before, after = ("".join(f"{line}\n" for line in lines).encode() for lines in (first, second))
    (folder / "both.txt").write_bytes(before + after)
    (folder / "after.txt").write_bytes(after)
    for form in ("wikitext", "lines", "plain"):
        span = (len(before), len(before) + len(after))
        spanned = list(sentences(TextFile(folder / "both.txt", form, span=span)))
        assert spanned == list(sentences(TextFile(folder / "after.txt", form)))
        assert list(sentences(TextFile(folder / "both.txt", form, span=(0, 0)))) == [""]


def test_an_error_in_a_span_names_the_byte_of_the_file(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"good\n" * 3 + b"b\xff\n")
    with pytest.raises(InputError, match="byte 16 "):
        list(sentences(TextFile(path, "lines", span=(15, 18))))


def test_utf16_is_recognised_by_its_mark(write):
    path = write("Some words.".encode("utf-16"))
    assert refusal(source, path) == (
        f"{path} is UTF-16, by its byte order mark: convert it (iconv -f UTF-16 -t UTF-8), and give the result"
    )


@pytest.mark.parametrize("spaces", [PIECE - 1, PIECE, 5000, 20_000])
def test_spaces_alone_are_no_sentence(write, spaces):
    path = write(f"One paragraph{' ' * spaces}goes on.\nAnd on.")
    found = [each for each in sentences(TextFile(path, "plain", documents="file")) if each != PARAGRAPH]
    assert [each for each in found if each in MARKS] in ([], [DOCUMENT])
    assert found[-1] in ("And on.", DOCUMENT)
    assert " ".join(" ".join(each for each in found if each).split()) == "One paragraph goes on. And on."


def test_an_empty_name():
    with pytest.raises(InputError, match="the name of a text is empty: name a file or a folder"):
        find_source("", CorpusConfig(), Path("cache"))


def test_an_invalid_language_code(write, said):
    path = write("Ein Satz.")
    for name in ("", "German", "d", "de;fr"):
        assert refusal(source, path, language=name) == (
            f"--language {name!r} is not a language code: give one like en, de or zh"
        )
    assert source(path, language="de").files
    assert said == []


@pytest.mark.parametrize(
    ("language", "rules"), [("zh", "ja"), ("th", "en"), ("ko", "en"), ("tr", "en"), ("pt-BR", "pt"), ("xx", "en")]
)
def test_a_language_without_rules_uses_related_ones(write, said, language, rules):
    path = write("我们去学校。你好！Merhaba dünya. Nasılsın?")
    [file] = source(path, language=language).files
    assert said == [f"--language {language}: sentences end by the rules for {rules}"]
    found = [each for each in sentences(file, language) if each not in MARKS]
    assert found == ["我们去学校。", "你好！", "Merhaba dünya.", "Nasılsın?"]
