"""Text in, sentences out: every form, against the notebook and against a plain reading of the whole file."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import textwrap
import tracemalloc
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.notebook import import_d2l, notebook_paragraphs, wikitext_folder

from bertfast.config import CorpusConfig
from bertfast.data.readers import lines
from bertfast.data.sentences import DOCUMENT, MARKS, PIECE, sentences
from bertfast.data.sources import wikitext
from bertfast.data.sources.embedded import library_files, prose
from bertfast.data.sources.find import embedded_source, find_source
from bertfast.data.sources.folders import kind_of
from bertfast.data.text_file import TextFile
from bertfast.errors import InputError

WIKITEXT = (
    " \n = Lobster = \n \n A lobster is big . It is <unk> . It <unk> . \n One sentence here .\n \n = = Diet = = \n"
)


def documents(path: Path, form: str, documents: str = "auto") -> list[list[str]]:
    return documents_of(TextFile(path, form, documents=documents))


def documents_of(file: TextFile) -> list[list[str]]:
    """The stream of sentences, divided into its documents; without the empty ones, which the corpus drops."""
    found: list[list[str]] = [[]]
    for sentence in sentences(file):
        if sentence == DOCUMENT:
            found.append([])
        elif sentence not in MARKS:
            found[-1].append(sentence)
    return [document for document in found if document]


def source(path: Path, **settings: Any):
    return find_source(path, CorpusConfig(**settings), path / "cache")


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "some.txt") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


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
def test_a_package_is_missed_where_it_is_needed(write, monkeypatch, name, form, package):
    for each in ("sentencex", "pyarrow"):
        monkeypatch.setitem(sys.modules, each, None)  # as if it were not installed
    file = TextFile(write("It rains . It snows .", name), form, kind_of(Path(name)) or "text")
    if package is None:
        assert "".join(sentences(file))
        return
    with pytest.raises(InputError, match=f"needs the package {package}: pip install {package}$"):
        list(sentences(file))


# ---- WikiText


def test_wikitext_is_the_notebooks_reading(tmp_path, monkeypatch):
    path = tmp_path / "wiki.train.tokens"
    path.write_bytes(b"".join((wikitext_folder() / name).read_bytes() for name in ("test.txt", "valid.txt")))
    monkeypatch.setattr(import_d2l().random, "shuffle", lambda paragraphs: None)
    ours = [[sentence.lower().split() for sentence in document] for document in documents(path, "wikitext")]
    theirs = [[sentence.replace("<unk>", "[unk]").split() for sentence in p] for p in notebook_paragraphs()]
    assert ours == [[sentence for sentence in paragraph if sentence] for paragraph in theirs]


@given(st.lists(st.lists(st.sampled_from(["a", "Bc", ".", " . ", " ", "<unk>", "= x =", "\t"])).map("".join)))
def test_any_wikitext_is_the_notebooks_reading(tmp_path_factory, content):
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


# ---- a sentence a line, and prose


def test_a_sentence_a_line(write):
    path = write("One. \n  Two.\n\n\n \nThree.\nFour.")
    assert documents(path, "lines") == [["One.", "Two."], ["Three.", "Four."]]


sentence_lists = st.lists(st.lists(st.text("ab .é漢\u2028\x0b", min_size=1).map(str.strip).filter(bool), min_size=1))


@given(sentence_lists)
def test_a_stream_written_out_is_the_form_lines(tmp_path_factory, texts):
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
def test_a_name_is_no_boundary(write, language, expected):
    """In scripts that have spaces, a boundary without one is none."""
    for content in (" ".join(expected), "\n".join(expected)) if language not in ("zh", "ja") else ["".join(expected)]:
        file = TextFile(write(content), "plain")
        assert [each for each in sentences(file, language) if each not in MARKS] == expected


# Sentences that abbreviations, initials and ordinals divide for no reason, and boundaries that look like these.
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
def test_no_sentence_ends_where_a_name_follows(write, language):
    expected = ABBREVIATIONS[language]
    for content in (" ".join(expected), "\n".join(expected)):
        found = sentences(TextFile(write(content), "plain"), language)
        assert [each for each in found if each not in MARKS] == expected


def test_an_item_of_a_list_begins_a_sentence(write):
    listed = "It takes:\n- a bird\n  of prey\n* the lake. And rain\n\n1. First\n2) second\n\n• Ünd\n• 鳥\n"
    expected = ["It takes:", "- a bird of prey", "* the lake.", "And rain", "1. First", "2) second", "• Ünd", "• 鳥"]
    assert documents(write(listed), "plain") == [expected]
    dash = "It was a bird\n- a crane - and nobody knew of the year\n2. Or so it seemed."
    assert documents(write(dash), "plain")[0][0].startswith("It was a bird - a crane - and nobody knew")


def test_long_paragraphs_keep_their_sentences(write):
    """Prose goes through the segmenter in pieces; where they are cut must not show."""
    expected = [f"This is sentence {i} of a paragraph that is {'very ' * (i % 50)}long." for i in range(400)]
    for content in (" ".join(expected), "\n".join(expected), "\n".join(" ".join(expected).split(" "))):
        assert documents(write(content), "plain") == [expected]


@settings(max_examples=30)
@given(st.lists(st.text("ab", min_size=1), min_size=1, max_size=20), st.integers(0, 4000), st.integers(0, 9))
def test_text_without_a_boundary_is_cut_between_words(tmp_path_factory, words, repeats, length):
    path = tmp_path_factory.mktemp("plain") / "some.txt"
    content = " ".join([*words, "c" * length] * (repeats // len(words) + 1))
    path.write_text(content)
    [document] = documents(path, "plain")
    assert " ".join(document).split() == content.split()
    assert max(map(len, document)) <= PIECE


def test_a_word_longer_than_a_piece_is_cut(write):
    [document] = documents(write("x" * 5000), "plain")
    assert "".join(document) == "x" * 5000
    assert max(map(len, document)) <= PIECE


def test_the_end_of_a_file_ends_a_document(write):
    for form in ("wikitext", "lines", "plain"):
        assert list(sentences(TextFile(write("a . b"), form)))[-1] == ""


# ---- reading


@given(st.text("a\n\r \x0b\x85\u2028é漢𝄞"), st.integers(1, 9))
def test_lines_are_those_of_the_whole_file(tmp_path_factory, content, block):
    path = tmp_path_factory.mktemp("lines") / "some.txt"
    path.write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block)
        found = list(lines.text_lines(path))
    assert found == [line.removesuffix("\n") for line in io.StringIO(content, newline=None)]


def test_text_is_normalised_to_nfc(write):
    """Of a word written in two ways one is left; what isn't Unicode's business stays as it is."""
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


def test_reading_takes_little_memory(write):
    path = write(b"a line of words\n" * (1 << 20))
    tracemalloc.start()
    try:
        assert sum(1 for sentence in sentences(TextFile(path, "lines")) if sentence) == 1 << 20
        assert tracemalloc.get_traced_memory()[1] < 12 << 20  # a block's lines, of 16 MiB
    finally:
        tracemalloc.stop()


def test_a_line_without_end_is_read_in_parts(write, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE", 100)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 30)
    found = list(lines.text_lines(write("x" * 1000)))
    assert "".join(found) == "x" * 1000
    assert max(map(len, found)) <= 130


def test_progress_counts_every_byte(write):
    path = write(WIKITEXT * 50)
    for form in ("wikitext", "lines", "plain"):
        sizes: list[int] = []
        list(sentences(TextFile(path, form), on_read=sizes.append))
        assert sum(sizes) == path.stat().st_size


# ---- which form


PROSE = "It was a dark night, and\nthe rain fell. Nobody\ncame.\n\nIn the morning the sun\nshone again. All was well.\n"
LINES = "It was dark.\nThe rain fell!\nNobody came.\n\nThe sun shone again.\n“All was well.”\n"
# No full stops: sentences that could have gone on in their line, and prose that could not.
TITLES = "".join(f"{'word ' * (3 + i * 7 % 11)}end of line {i}\n" for i in range(30))
WRAPPED = textwrap.fill("a word or two and some more of them then yet others without any end in sight " * 20, 60)
VERSE = WRAPPED.replace("two", "Two. It")
CHINESE = "".join(f"{'我们今天去学校读书写字' * (1 + i * 7 % 5)}第{i}天\n" for i in range(500))
PROTEINS = "".join(f"{'MKVLAAGIVG' * (3 + i * 7 % 11)}{'ACDEFGHIKL'[i % 10]}\n" for i in range(300))
READS = "".join(f"{'ACGT' * 37}{'ACGT'[i % 4]}{'ACGT'[i // 4 % 4]}\n" for i in range(300))
SMILES = "".join(f"CC(=O){'C' * (1 + i % 9)}N1CCC(CC1)c1ccc(F)cc1.Cl\n" for i in range(300))
THAI = "".join(f"{'ผมไปโรงเรียนทุกวัน ' * (1 + i * 7 % 5)}วันที่{i}\n" for i in range(100))
LOG = "".join(f"2024-01-{i % 28 + 1:02} INFO worker {i} of {'node ' * (i * 7 % 11)}is up, or not\n" for i in range(99))
# Logs whose lines are of one length, or nearly so, and hold ends of sentences.
HEARTBEATS = "".join(f"2024-01-{i % 28 + 1:02} 10:{i % 60:02} INFO worker-{i % 7} is up. OK\n" for i in range(99))
ACCESSES = "".join(
    f'10.0.{i % 4}.{i % 250} - - "GET /{"abc"[i % 3]}.html HTTP/1.1" 200 {i * 97 % 1000}\n' for i in range(99)
)
SYSLOG = "".join(
    f"Jan {i % 28 + 1:2} host{i % 3} cron[{100 + i}]: session opened for user a{i % 9}\n" for i in range(99)
)
# Wrapped all the same.
QUOTED = textwrap.indent(WRAPPED, "> ")
NUMBERED = "".join(f"{i}. {textwrap.fill('a clause of a contract ' * 9, 60)}\n\n" for i in range(20))
WRAPPED_CHINESE = textwrap.fill(CHINESE.replace("\n", "。"), 40)
WRAPPED_THAI = textwrap.fill(THAI.replace("\n", " "), 70)
CHANGES = "".join(
    f"{i}: Fix what it does when a line of\ntext is too long. It is not now.\nTests are there.\n\n" for i in range(20)
)
JAPANESE = "".join(
    f"{'日付の指定は' * (1 + i % 4)}、\n時刻の指定の後に{'も' * (i % 5)}\n行わなければならない。\n\n" for i in range(20)
)
# Manuals: headings and options, most of which are no sentences, above wrapped text.
MANUAL = "".join(
    f"HEADING {i}\n  -{'abc'[i % 3]}, --option-{i}\n    an option that does something, as it {'is ' * (i % 4)}asked\n"
    f"    to do{' by whom'[: i % 7]}{'. See there.' if i % 3 == 0 else ''}\n\n"
    for i in range(30)
)
JAPANESE_MANUAL = "".join(
    f"オプション{i}\n  -{'abc'[i % 3]}, --option-{i}\n    ファイルを{'すべて' * (i % 4)}表示し、指定された\n"
    f"    ものだけを出力{'する。' if i % 3 == 0 else ''}\n\n"
    for i in range(30)
)
# Lyrics, titles or chats without full stops, but for some at any place.
STANZAS = "".join(
    f"{'word ' * (3 + i * 7 % 11)}end of line {i}{'.' * (i % 5 == 0)}\n{chr(10) * (i % 4 == 3)}" for i in range(80)
)
LINE_BY_LINE = (CHINESE, PROTEINS, READS, SMILES, THAI, LOG, HEARTBEATS, ACCESSES, SYSLOG)
PARAGRAPHS = "It was dark. The rain fell.\n\nIn the morning the sun shone. All was well.\n"


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("wiki.train.tokens", "anything", "wikitext"),
        ("wiki.test.raw", "anything", "wikitext"),
        ("train.txt", WIKITEXT, "wikitext"),
        ("mine.text", WIKITEXT, "wikitext"),
        ("train.txt", PROSE, "plain"),
        ("mine.txt", LINES, "lines"),
        ("mine.txt", PARAGRAPHS, "plain"),
        ("mine.txt", LINES.replace("\n\n", "\n"), "plain"),
        ("mine.txt", "", "plain"),
        ("mine.txt", TITLES, "lines"),
        ("mine.txt", TITLES.replace("7\n", "7\n\n"), "lines"),
        ("mine.txt", TITLES.replace("\n", "\n\n"), "plain"),
        ("mine.txt", TITLES.replace("line", "Line. It goes on"), "plain"),
        ("mine.txt", WRAPPED, "plain"),
        ("mine.txt", VERSE, "plain"),
        ("mine.html", TITLES, "plain"),
        *((f"mine{suffix}", text, "plain") for suffix in (".md", ".RST", ".md.gz") for text in (TITLES, LINES)),
        *(("mine.txt", text, "lines") for text in LINE_BY_LINE),
        *(("mine.txt", text, "plain") for text in (WRAPPED_CHINESE, WRAPPED_THAI, QUOTED, NUMBERED)),
        ("mine.txt", CHANGES, "plain"),
        ("mine.txt", JAPANESE, "plain"),
        *(("mine.txt", text, "plain") for text in (MANUAL, JAPANESE_MANUAL)),
        ("mine.txt", STANZAS, "lines"),
        ("mine.txt", " = Results = \n" + PROSE * 20, "plain"),  # as a report or a Python source may have
        ("mine.txt", " = Results = \n = = More = = \n" + PROSE * 20, "plain"),
        ("mine.jsonl", json.dumps({"text": WIKITEXT}), "plain"),
        ("mine.html", WIKITEXT, "plain"),
        ("mine.txt", LINES * 10_000 + WIKITEXT, "lines"),  # only the beginning is looked at
    ],
)
def test_the_form_is_inferred_from_name_and_beginning(write, name, content, form):
    content = gzip.compress(content.encode()) if name.endswith(".gz") else content
    found = source(write(content, name))
    assert [file.form for file in found.files] == [form]
    assert form in found.description


def test_no_such_line_is_lost(write):
    for text in LINE_BY_LINE:
        [file] = source(write(text)).files
        assert list(chain.from_iterable(documents_of(file))) == [line.strip() for line in text.splitlines()]


def test_lines_are_joined_as_their_script_asks(write):
    path = write("我们今天\n去学校。\nผมไป\nโรงเรียน\nand then\nhome to 한국\n사람")
    assert "".join(documents(path, "plain")[0]) == "我们今天去学校。ผมไปโรงเรียน and then home to 한국 사람"


def test_a_given_form_is_used(write):
    assert source(write(WIKITEXT), text_form="plain").files[0].form == "plain"


# ---- which files


def test_a_folder_with_a_training_split_gives_it_alone(write, tmp_path):
    for name in ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"):
        write(WIKITEXT, name)
    found = source(tmp_path)
    assert [file.path.name for file in found.files] == ["wiki.train.tokens"]
    assert "the training split wiki.train.tokens alone, without wiki.valid.tokens and wiki.test.tokens" in (
        found.description
    )


def test_a_folder_without_one_gives_all(write, tmp_path):
    names = ["b.txt", "valid.txt", "a/deep/c.md", "a/d.raw", "e.text", "f.tokens"]
    for name in [*names, ".hidden.txt", ".git/x.txt", "image.png", "script.py"]:
        write("A sentence.", name)
    found = source(tmp_path)
    assert [file.path.relative_to(tmp_path).as_posix() for file in found.files] == sorted(names)
    assert "6 files: plain" in found.description
    assert ": 2 files of other kinds left out: .png .py (" in found.description


def test_train_txt_without_held_out_text_is_a_file_like_any(write, tmp_path):
    write("A sentence.", "train.txt")
    write("A sentence.", "more.txt")
    assert [file.path.name for file in source(tmp_path).files] == ["more.txt", "train.txt"]


def test_wikitext_by_name_is_found_where_the_notebook_puts_it(write, tmp_path, monkeypatch):
    write(WIKITEXT, "data/wikitext-2/wiki.train.tokens")
    (tmp_path / "notebooks").mkdir()
    for place in (tmp_path, tmp_path / "notebooks", tmp_path / "data"):
        monkeypatch.chdir(place)
        [file] = find_source("wikitext-2", CorpusConfig(), tmp_path / "cache").files
        assert file.path.samefile(tmp_path / "data/wikitext-2/wiki.train.tokens")


class Hub:
    """A hub that serves one file, as `huggingface_hub` does."""

    def __init__(self, path: Path, sha256: str) -> None:
        self.path, self.sha256, self.downloads = path, sha256, 0

    def hf_hub_url(self, **where):
        return "https://hub/" + where["filename"]

    def get_hf_file_metadata(self, url):
        assert url == "https://hub/wikitext-2-v1/train-00000-of-00001.parquet"
        return type("Metadata", (), {"etag": self.sha256})

    def hf_hub_download(self, **where):
        self.downloads += 1
        return str(self.path)


@pytest.fixture
def parquet(tmp_path):
    """The lines of `WIKITEXT` as the hub has them: empty lines are empty rows."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = ["" if line == " " else f"{line}\n" for line in WIKITEXT.splitlines()]
    parquet.write_table(pyarrow.table({"text": rows}), tmp_path / "part.parquet")
    return tmp_path / "part.parquet"


def test_wikitext_from_the_hub(parquet, tmp_path, monkeypatch):
    hub = Hub(parquet, wikitext._sha256(parquet))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        [file] = find_source("wikitext-2", CorpusConfig(), tmp_path / "cache").files
        assert file.form == "wikitext"
        assert documents(file.path, file.form) == [["A lobster is big", "It is [UNK]", "It [UNK] ."]]
    assert hub.downloads == 1


def test_a_damaged_download_is_refused(parquet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(parquet, "0" * 64))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"part\.parquet isn't what the hub has"):
        find_source("wikitext-2", CorpusConfig(), tmp_path / "cache")
    assert not (tmp_path / "cache/texts/wikitext-2/wiki.train.tokens").exists()


def test_no_network_names_both_ways_out(tmp_path, monkeypatch):
    class Offline(Hub):
        def get_hf_file_metadata(self, url):
            raise ConnectionError("Name or service not known")

    pytest.importorskip("pyarrow")
    monkeypatch.setitem(sys.modules, "huggingface_hub", Offline(tmp_path, ""))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^wikitext-2: .*ConnectionError.*put a copy in data/wikitext-2, or run once"):
        find_source("wikitext-2", CorpusConfig(), tmp_path / "cache")


def test_no_hub_library_names_both_ways_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"put a copy in data/wikitext-103, or pip install 'bertfast\[hub\]'"):
        find_source("wikitext-103", CorpusConfig(), tmp_path / "cache")


# ---- the embedded text


def test_the_embedded_text_is_prose():
    assert all(file.form == "python" for file in embedded_source().files)
    topics = next(path for path in library_files() if path.name == "topics.py")
    paragraphs = [paragraph for paragraph in prose(topics.read_bytes()) if paragraph]
    assert len(paragraphs) > 800
    for paragraph in paragraphs:
        assert re.search(r"[.!?][)\"]?$", paragraph)
        assert not re.search(r">>>|::=|\*{4}|={4}|\n", paragraph)
    assert not [path for path in library_files() if {"test", "site-packages", "idlelib"} & set(path.parts)]


def test_docstrings_without_their_code():
    code = '''
"""A module of little use.

Usage:

    >>> twice(2)
    4

It ends (e.g.) like this.
"""
class C:
    """A class that has a table.

    ====  ====
    some  cell
    ====  ====

    1. A point that is a sentence.
    """
    def f(self):
        """f(self) -> None"""
        def inner():
            "It is nested in a function."
'''
    assert [paragraph for paragraph in prose(code.encode()) if paragraph] == [
        "A module of little use.",
        "It ends (e.g.) like this.",
        "A class that has a table.",
        "A point that is a sentence.",
        "It is nested in a function.",
    ]


def test_embedded_punctuation_stands_apart(write):
    path = write(b'"""It isn\'t self.x as one might hope (see "f(a)"), e.g. here. And so on it goes."""', "some.py")
    assert [" ".join(sentence.split()) for sentence in documents(path, "python")[0]] == [
        """It isn't self.x as one might hope ( see " f(a ) " ) , e.g . here .""",
        "And so on it goes .",
    ]


# ---- errors: one line that names the thing and the way out


def refusal(call) -> str:
    with pytest.raises(InputError) as refused:
        call()
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_no_such_path(tmp_path):
    assert refusal(lambda: source(tmp_path / "nowhere")) == f"no such file or folder: {tmp_path}/nowhere"


def test_a_folder_without_text(write, tmp_path):
    write("x", "a.png")
    assert refusal(lambda: source(tmp_path)) == (
        f"no text files in {tmp_path} (1 file of other kinds left out: .png): bertfast reads .txt, .text, .tokens, "
        ".raw, .md, .rst, .html, .htm, .jsonl, .ndjson, .json, .csv, .tsv, .parquet, each also with .gz or .zst"
    )


def test_not_a_regular_file():
    assert "/dev/null is neither a file nor a folder" in refusal(lambda: source(Path("/dev/null")))


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("content", "byte"),
    [(b"caf\xe9 au lait", 3), (b"\xef\xbb\xbfok\n\xff", 6), (b"ab\xc3", 2), (b"\xc3\xa9\xc3\xa9\xe2\x82x", 4)],
)
def test_not_utf8_names_the_byte(write, monkeypatch, block, content, byte):
    monkeypatch.setattr(lines, "BLOCK_BYTES", block)
    path = write(content)
    for form in ("wikitext", "lines", "plain"):
        message = refusal(lambda form=form: documents(path, form))
        assert message.startswith(f"{path} is not UTF-8: byte {byte} (")
        mixed = "the file mixes encodings: convert only the rest"
        assert message.endswith(mixed if "é".encode() in content else "convert it, with iconv for example")


def test_a_binary_file(write, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 4)
    path = write(b"PK\x03\x04abc\x00")
    assert refusal(lambda: documents(path, "plain")) == (f"{path} is not text: byte 7 is zero; give UTF-8 text files")


def test_a_file_that_goes_away(tmp_path):
    missing = tmp_path / "gone.txt"
    assert refusal(lambda: documents(missing, "plain")) == f"cannot read {missing}: No such file or directory"


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
    assert refusal(lambda: source(path)) == (
        f"{path} is UTF-16, by its byte order mark: convert it (iconv -f UTF-16 -t UTF-8), and give the result"
    )


def test_what_is_no_language(write, said):
    path = write("Ein Satz.")
    for name in ("", "German", "d", "de;fr"):
        assert refusal(lambda name=name: source(path, language=name)) == (
            f"--language {name!r} is not a language code: give one like en, de or zh"
        )
    assert source(path, language="de").files
    assert said == []


@pytest.mark.parametrize(
    ("language", "rules"), [("zh", "ja"), ("th", "en"), ("ko", "en"), ("tr", "en"), ("pt-BR", "pt"), ("xx", "en")]
)
def test_a_language_without_rules_takes_the_nearest(write, said, language, rules):
    path = write("我们去学校。你好！Merhaba dünya. Nasılsın?")
    [file] = source(path, language=language).files
    assert said == [f"--language {language}: sentences end by the rules for {rules}"]
    found = [each for each in sentences(file, language) if each not in MARKS]
    assert found == ["我们去学校。", "你好！", "Merhaba dünya.", "Nasılsın?"]
