"""The text of HTML: a page by hand, and no exception for any input."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertfast.data.readers import html as html_text
from bertfast.data.readers import lines
from bertfast.data.readers.html import html_lines
from bertfast.data.sentences import sentences
from bertfast.data.text_file import TextFile
from bertfast.errors import InputError

PAGE = """<!DOCTYPE html>
<html><head><title>Not shown</title><style>p { color: red }</style>
<script>if (a < b) { document.write("<p>no</p>") }</script></head>
<body><!-- not <b>this</b> --><nav><ul><li>Home</li><li>About</li></ul></nav>
<h1>A&nbsp;heading</h1>
<p>It is <b>b</b>old &amp; <i>bea</i>utiful,
   isn&#39;t it? Yes<br>it is.
<p>An unclosed one.<![CDATA[ nor this ]]><template><p>nor that</p></template>
<table><tr><td>Cell one<td>Cell two</table>
<pre>Pre  formatted
text</pre><svg/>Last words
"""


def paragraphs(path: Path) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for line in html_lines(path):
        if line:
            found[-1].append(line)
        else:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_a_page_by_hand(tmp_path, monkeypatch, block):
    monkeypatch.setattr(lines, "BLOCK_BYTES", block)
    path = tmp_path / "a.html"
    path.write_text(PAGE)
    assert paragraphs(path) == [
        ["Home"],
        ["About"],
        ["A heading"],
        ["It is bold & beautiful, isn't it? Yes", "it is."],
        ["An unclosed one."],
        ["Cell one"],
        ["Cell two"],
        ["Pre formatted text"],
        ["Last words"],
    ]
    assert list(sentences(TextFile(path, "plain", "html")))[3:6] == [
        "It is bold & beautiful, isn't it?",
        "Yes it is.",
        "An unclosed one.",
    ]
    assert list(sentences(TextFile(path, "plain", "html"))).count("") == 1  # a file is a document


PIECES = [
    "<",
    ">",
    "</",
    "<!",
    "<![",
    "<!--",
    "-->",
    "<?",
    "p",
    "script",
    "title",
    " ",
    "=",
    '"',
    "&",
    "&#",
    "x;",
    "[if",
    "a",
]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_can_be_read_as_html(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("html") / "a.html"
    path.write_text(content)
    assert all("<p>" not in line for line in html_lines(path))


def test_long_text_without_tags_is_split(tmp_path, monkeypatch):
    monkeypatch.setattr(html_text, "MAX_LINE", 1000)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 500)
    path = tmp_path / "a.html"
    path.write_text("some words " * 1000)
    found = list(html_lines(path))
    assert " ".join(found).split() == ["some", "words"] * 1000
    assert max(map(len, found)) <= 1500 + len("words")


def test_a_script_that_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(html_text, "MAX_RECORD", 1 << 20)
    path = tmp_path / "a.html"
    path.write_text("<p>Text.</p><script>" + "a = 1;\n" * 400_000)
    with pytest.raises(InputError, match=r"a\.html: a tag, comment or script doesn't end within 1 MiB"):
        list(html_lines(path))


def test_two_breaks_end_a_paragraph(tmp_path):
    (tmp_path / "a.html").write_text("<p>One<br />line<br><br>Two <b>more</b><br>\n<br />\nThree<br></p>End")
    assert list(html_lines(tmp_path / "a.html")) == ["", "One", "line", "", "Two more", "", "Three", "", "End"]
