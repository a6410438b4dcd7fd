"""Records that several libraries write are read as written; an error names the line or row."""

from __future__ import annotations

import csv
import gc
import gzip
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusal import refusal

from bertfast.data.readers import json_array as json_array_module
from bertfast.data.readers import lines as lines_module
from bertfast.data.readers import records as records_module
from bertfast.data.readers.json_array import array_items
from bertfast.data.readers.records import column_texts, json_kind, records
from bertfast.data.sentences import sentences
from bertfast.data.text_file import TextFile

texts = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), max_size=8)


def write(path: Path, values: list[str | None]) -> Path:
    """The values under `text`, with another column before it, as the format's own library writes them."""
    kind = path.suffixes[0][1:]
    if kind == "jsonl":
        content = "".join(json.dumps({"n": i, "text": v}, ensure_ascii=i % 2 > 0) + "\n" for i, v in enumerate(values))
        data = content.encode()
    elif kind == "json":
        data = json.dumps([{"n": i, "text": v} for i, v in enumerate(values)], indent=len(values) % 3 or None).encode()
    elif kind == "parquet":
        buffer = io.BytesIO()
        table = pyarrow.table({"n": range(len(values)), "text": pyarrow.array(values, pyarrow.string())})
        pyarrow.parquet.write_table(table, buffer, row_group_size=3)
        data = buffer.getvalue()
    else:
        stream = io.StringIO(newline="")
        delimiter = {"csv": ",", "tsv": "\t"}[kind]
        csv.writer(stream, delimiter=delimiter).writerows([["n", "text"], *enumerate(values)])
        data = stream.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(path: Path, kind: str, column: str = "text") -> Iterator[str]:
    return column_texts(TextFile(path, "plain", kind, column))


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
@given(values=texts)
def test_records_are_read_as_written(tmp_path_factory, kind, values):
    path = write(tmp_path_factory.mktemp("records") / f"a.{kind}", values)
    assert list(read(path, kind)) == values


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_compressed(tmp_path, kind):
    values = [f'Text {i},\n\t"it" goes on' for i in range(1000)]
    path = write(tmp_path / f"a.{kind}.gz", values)
    sizes: list[int] = []
    assert list(column_texts(TextFile(path, "plain", kind, "text"), sizes.append)) == values
    assert sum(sizes) == path.stat().st_size


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_byte_order_mark_is_dropped(tmp_path, kind):
    content = {"jsonl": '{"text": "One."}', "json": '[{"text": "One."}]', "csv": "text\nOne.\n"}[kind]
    (tmp_path / f"a.{kind}").write_text(content, encoding="utf-8-sig")
    assert list(read(tmp_path / f"a.{kind}", kind)) == ["One."]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_null_is_an_empty_text(tmp_path, kind):
    path = write(tmp_path / f"a.{kind}", ["One.", None, "", "Two."])
    assert list(read(path, kind)) == ["One.", "", "", "Two."]


def test_a_record_is_a_document(tmp_path):
    values = ["One. Two.\n\nThree\nand more.", "  \n", "Four.\r\rFive.\r\nSix."]
    path = write(tmp_path / "a.jsonl", values)
    assert list(sentences(TextFile(path, "plain", "jsonl", "text"))) == [
        *("One.", "Two.", "Three and more.", ""),
        "",
        *("Four.", "Five.", "Six.", ""),
    ]
    assert list(sentences(TextFile(path, "lines", "jsonl", "text"))) == [
        *("One. Two.", "Three", "and more.", ""),
        "",
        *("Four.", "Five.", "Six.", ""),
    ]


def test_records_of_wikitext(tmp_path):
    path = write(tmp_path / "a.parquet", [" = Lobster = \n", "", " It is big . It is <unk> . \n"])
    found = list(sentences(TextFile(path, "wikitext", "parquet", "text")))
    assert list(filter(None, found)) == ["It is big", "It is [UNK] ."]


TEXTS = [pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()]
LISTS = [pyarrow.list_, pyarrow.large_list, lambda item: pyarrow.list_(item, 2)]


@pytest.mark.parametrize("type", [*TEXTS, pyarrow.dictionary(pyarrow.int32(), pyarrow.string())], ids=str)
def test_every_text_type_of_parquet(tmp_path, type):
    values = pyarrow.array(["One.", None, "Two.", "One."])
    values = values.dictionary_encode().cast(type) if pyarrow.types.is_dictionary(type) else values.cast(type)
    pyarrow.parquet.write_table(pyarrow.table({"text": values}), tmp_path / "a.parquet")
    assert pyarrow.parquet.read_schema(tmp_path / "a.parquet").field("text").type == type
    assert list(read(tmp_path / "a.parquet", "parquet")) == ["One.", "", "Two.", "One."]


@pytest.mark.parametrize("by_pyarrow", [False, True])
def test_a_parquet_file_by_polars(tmp_path, by_pyarrow):
    """Text, categories, lists, and a column in a struct; by its own writer, and by pyarrow's."""
    polars = pytest.importorskip("polars")
    values = ["One.", None, "Two.", "One."]
    columns = {
        "text": polars.Series(values),
        "category": polars.Series(values, dtype=polars.Categorical),
        "list": polars.Series([None if value is None else [value, "More."] for value in values]),
        "data": polars.Series([{"text": value, "id": 1} for value in values]),
    }
    path = tmp_path / "a.parquet"
    polars.DataFrame(columns).write_parquet(path, use_pyarrow=by_pyarrow)
    for column in ("text", "category", "data.text"):
        assert list(read(path, "parquet", column)) == [value or "" for value in values]
    assert list(read(path, "parquet", "list")) == ["One.\n\nMore.", "", "Two.\n\nMore.", "One.\n\nMore."]


@pytest.mark.parametrize("list_of", LISTS)
@pytest.mark.parametrize("type", TEXTS, ids=str)
def test_the_items_of_a_list_become_paragraphs(tmp_path, type, list_of):
    values = pyarrow.array([["One.", "Two."], None, [None, "Three."]], list_of(type))
    pyarrow.parquet.write_table(pyarrow.table({"text": values}), tmp_path / "a.parquet")
    assert list(read(tmp_path / "a.parquet", "parquet")) == ["One.\n\nTwo.", "", "Three."]


NESTED = [
    {"data": {"text": "One.", "n": 1}, "id": 1},
    {"data": None, "id": 2},
    {"data": {"text": None, "n": 3}, "id": 3},
]


def write_nested(path: Path) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(NESTED), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(NESTED))
    else:
        path.write_text("".join(f"{json.dumps(record)}\n" for record in NESTED))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_a_nested_column(tmp_path, kind):
    path = write_nested(tmp_path / f"a.{kind}")
    assert list(read(path, kind, "data.text")) == ["One.", "", ""]
    assert "no column 'data.body'; there are 'data." in refused(path, kind, column="data.body")
    assert "no column 'dat.text'; there are 'data', 'id'" in refused(path, kind, column="dat.text")
    assert "'data.n' holds" in refused(path, kind, column="data.n")
    assert "'data' holds" in refused(path, kind, column="data")
    assert refused(path, kind, column="id.text")


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv"])
def test_a_column_with_a_dot_in_its_name(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"a.b": ["One."]}), path)
    else:
        path.write_text({"jsonl": '{"a.b": "One."}', "json": '[{"a.b": "One."}]', "csv": "a.b,c\nOne.,2\n"}[kind])
    assert list(read(path, kind, "a.b")) == ["One."]


@pytest.mark.parametrize("delimiter", [";", "\t", "|", "§"])
def test_a_delimiter(tmp_path, delimiter):
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        # csv.writer quotes fields that need it.
        csv.writer(file, delimiter=delimiter).writerows([["n", "text"], [1, f"a{delimiter}b, c"], [2, "d"]])
    assert list(column_texts(TextFile(path, "plain", "csv", "text", delimiter=delimiter))) == [f"a{delimiter}b, c", "d"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
@given(values=texts)
def test_every_kind_of_line_end(tmp_path_factory, kind, end, values):
    """Those within quotes stay as they are."""
    path = tmp_path_factory.mktemp("records") / f"a.{kind}"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter={"csv": ",", "tsv": "\t"}[kind], lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([["n", "text"], *enumerate(values)])
    assert list(read(path, kind)) == values


def test_an_error_counts_lines_that_old_macs_ended(tmp_path):
    message = refused(tmp_path / "a.csv", "csv", b"id,text\r1,a\r2\r")
    assert message == ":3: a row of 1 fields, but the header has 2: fix that row"


_JSON = st.recursive(st.none() | st.integers() | st.text(max_size=8), lambda each: st.lists(each, max_size=4))


@settings(max_examples=60)
@given(
    st.lists(st.dictionaries(st.text(max_size=3), _JSON, max_size=3), max_size=6),
    st.sampled_from([1, 2, 7, 1 << 20]),
    st.sampled_from([None, 1]),
)
def test_a_json_array_is_read_as_by_the_json_module(tmp_path_factory, items, block, indent):
    """Block boundaries fall anywhere."""
    path = tmp_path_factory.mktemp("array") / "a.json"
    path.write_text(json.dumps(items, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "BLOCK_BYTES", block)
        assert list(array_items(path, lambda size: None)) == json.loads(path.read_text())


def test_a_json_array_is_read_in_bounded_memory(tmp_path):
    path = tmp_path / "a.json"
    count = 20_000
    with path.open("w") as file:
        file.write("[" + ",\n".join(json.dumps({"text": f"{i} " + "some words " * 200}) for i in range(count)) + "]")
    assert path.stat().st_size > 40 << 20
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(path, "json")) == count
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_json_record_has_a_maximum_length(tmp_path, monkeypatch):
    monkeypatch.setattr(json_array_module, "MAX_RECORD", 1000)
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", 100)
    path = write(tmp_path / "a.json", ["a", "b" * 900])
    assert list(read(path, "json")) == ["a", "b" * 900]
    message = refused(write(path, ["a", "b" * 9000, "c"]), "json")
    assert "the record is malformed, or longer than 0 MiB" in message


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'[{"text": "a"}]', "json"),
        (b'\n [\n{"text": "a"}]', "json"),
        (b'\xef\xbb\xbf[{"text": "a"}]', "json"),
        (b'{"text": "a"}\n', "jsonl"),
        (b"", "jsonl"),
        (b" \n" * 2_000_000 + b"[]", "json"),
    ],
)
def test_the_kind_of_a_json_file(tmp_path, content, kind):
    (tmp_path / "a.json").write_bytes(content)
    assert json_kind(tmp_path / "a.json") == kind


def test_an_empty_file_of_any_kind_has_no_records(tmp_path):
    for kind in ("jsonl", "csv", "tsv", "parquet"):
        (tmp_path / f"a.{kind}").touch()
        assert list(read(tmp_path / f"a.{kind}", kind)) == []
    for kind in ("jsonl", "csv", "tsv"):
        (tmp_path / f"a.{kind}").write_text("", encoding="utf-8-sig")
        assert list(read(tmp_path / f"a.{kind}", kind)) == []


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_empty_lines_before_the_header(tmp_path, kind):
    mark = "," if kind == "csv" else "\t"
    (tmp_path / f"a.{kind}").write_text(f"\n\nid{mark}text\n\n1{mark}a\n")
    [(where, record)] = records(TextFile(tmp_path / f"a.{kind}", "plain", kind), ["text"])
    assert (where, record) == (f"{tmp_path / f'a.{kind}'}:5", {"text": "a"})


def refused(path: Path, kind: str, content: bytes | None = None, column: str = "text") -> str:
    """What is said of the file, after its name."""
    if content is not None:
        path.write_bytes(content)
    message = refusal(lambda: list(read(path, kind, column)))
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n\n{"text": \n', ":3: not JSON (Expecting value, column 11): give a JSON object on each line"),
        (b'{"text": "a"} {"text": "b"}', ":1: not JSON (Extra data, column 15): give a JSON object on each line"),
        (b'["a"]', ":1: a record is a JSON object with a key 'text', not a list"),
        (
            b'{"text": "a"}\n{"body": "b", "n": 1}',
            ":2: no column 'text'; there are 'body', 'n': name one with --text-column",
        ),
        (b"{}", ":1: no column 'text'; there are none: name one with --text-column"),
        (b'{"text": 5}', ":1: 'text' holds a number, not text: name another --text-column"),
        (b'{"text": ["a", 5]}', ":1: 'text' holds a list with a number, not text: name another --text-column"),
        (b'{"text": {"a": "b"}}', ":1: 'text' holds an object, not text: name another --text-column"),
        (b'{"text": "a\\u0000b"}', ":1: the text holds a NUL character, so it is not text: fix that record"),
        (b'{"text": "a\\ud83db"}', ":1: \\ud83d is half of a surrogate pair, not a character: fix that record"),
        (b'{"text": ' + b"1" * 5000 + b"}", ":1: JSON that can't be read ("),
        (
            b'{"text": "caf\xe9"}',
            " is not UTF-8: byte 13 (invalid continuation byte); convert it, with iconv for example",
        ),
    ],
)
def test_a_malformed_json_line(tmp_path, content, message):
    assert refused(tmp_path / "a.jsonl", "jsonl", content).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"text": "a"},\n{"text": }]', ":2: not JSON (Expecting value, column 10): give an array of JSON objects"),
        (b'[{"text": "a"}\n{"text": "b"}]', ":2: not JSON (expecting , or ], column 1)"),
        (b'[{"text": "a"},]', ":1: not JSON (Expecting value, column 16)"),
        (b'[{"text": "a"}', ":1: not JSON (expecting , or ], column 15)"),
        (b'[{"text": "a"}] x', ":1: not JSON (text after the array's end, column 17)"),
        (b'[{"text": "a"}, {"text": "b', ":1: not JSON (Unterminated string starting at, column 26)"),
        (b'[{"text": "a"}, {"n": "b"}]', ", record 2: no column 'text'; there are 'n': name one with --text-column"),
        (b'["a"]', ", record 1: a record is a JSON object with a key 'text', not a string"),
        (b"[1, 2]", ", record 1: a record is a JSON object with a key 'text', not a number"),
        (b'[{"text": 5}]', ", record 1: 'text' holds a number, not text: name another --text-column"),
        (b'[{"text": ' + b"1" * 5000 + b"}]", ":1: not JSON (Exceeds the limit"),
        (b'[{"text": "caf\xe9"}]', " is not UTF-8: byte 14 ("),
        (b'[{"text": "a\0"}]', " is not text: byte 12 is zero"),
    ],
)
def test_a_malformed_json_array(tmp_path, content, message):
    assert refused(tmp_path / "a.json", "json", content).startswith(message)


@pytest.mark.parametrize(("kind", "message"), [("jsonl", ":1: JSON that can't be read ("), ("json", ":1: not JSON (")])
def test_brackets_nested_too_deep(tmp_path, kind, message):
    gc.collect()  # a finalizer of what earlier tests left would fail so deep in the recursion
    assert refused(tmp_path / f"a.{kind}", kind, b"[" * 100_000).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,body\n1,a\n", ": no column 'text'; there are 'id', 'body': name one with --text-column"),
        (b'id,text\n1,"a\nb"\n\n2\n', ":5: a row of 1 fields, but the header has 2: fix that row"),
        (b"id,text\n1,a,b\n", ":2: a row of 3 fields, but the header has 2: fix that row"),
        (b'id,text\n1,a\n2,"b\nc\n', ":3: the row that begins here is broken (unexpected end of data): put a field"),
        (b'"the\nid",text\n1\n', ":3: a row of 1 fields, but the header has 2: fix that row"),
        (b'id,text\n1,"a"b\n', ":2: the row that begins here is broken ("),
        (b"id,text\n1,caf\xe9\n", " is not UTF-8: byte 13 ("),
    ],
)
def test_a_broken_csv(tmp_path, content, message):
    assert refused(tmp_path / "a.csv", "csv", content).startswith(message)


def test_a_csv_field_has_a_maximum_length(tmp_path, monkeypatch):
    monkeypatch.setattr(records_module, "MAX_RECORD", 1000)
    field = "some words\n" * 80
    assert list(read(write(tmp_path / "a.csv", [field]), "csv")) == [field]
    message = refused(write(tmp_path / "b.csv", ["a", field * 2]), "csv")
    assert message.startswith(":3: the row that begins here is broken (field larger than field limit (1000))")


def test_a_parquet_without_the_column(tmp_path):
    path = write(tmp_path / "a.parquet", ["a"])
    assert (
        refused(path, "parquet", column="body")
        == ": no column 'body'; there are 'n', 'text': name one with --text-column"
    )
    assert refused(path, "parquet", column="n") == ": 'n' holds int64, not text: name another --text-column"


def test_a_parquet_with_a_row_that_is_not_utf8(tmp_path):
    raw = pyarrow.array([b"good", b"caf\xe9"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": raw}), tmp_path / "a.parquet")
    assert refused(tmp_path / "a.parquet", "parquet").startswith(", row 2: not UTF-8 (")


def test_a_damaged_parquet(tmp_path):
    whole = write(tmp_path / "whole.parquet", [f"Text number {i} of them." for i in range(2000)]).read_bytes()
    for content in (whole[: len(whole) // 2], b"PAR1", b"some text", whole[:-4] + b"PAR2", bytes(2000) + whole[2000:]):
        assert refused(tmp_path / "a.parquet", "parquet", content).startswith(" is not a complete parquet file (")


def test_a_parquet_is_read_in_bounded_memory(tmp_path):
    """One row group with 48 MB of text, uncompressed."""
    rows = [f"{i} " + "words and words " * 120 for i in range(25_000)]
    table = pyarrow.table({"text": rows})
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=len(rows), compression="none", use_dictionary=False)
    assert path.stat().st_size > 45 << 20
    del table, rows
    before = peak = pyarrow.total_allocated_bytes()
    tracemalloc.start()  # blocks of the file are in Python's memory, columns in Arrow's
    try:
        for _ in read(path, "parquet"):
            peak = max(peak, pyarrow.total_allocated_bytes())
        assert peak - before < 16 << 20
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_json_line_of_50_mb(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "')
        for _ in range(50):
            file.write(b"A sentence of words. " * 47_619)
        file.write(b'"}\n{"text": "The end."}\n')
    tracemalloc.start()
    try:
        *parts, end, last, _ = map(len, sentences(TextFile(path, "lines", "jsonl", "text")))
        assert sum(parts) + len(parts) == 50 * 47_619 * 21  # a space after each part was stripped
        assert (end, last) == (0, len("The end."))
        assert max(parts) <= 1 << 20
        assert tracemalloc.get_traced_memory()[1] < 220 << 20  # the line as bytes and as text, and its value
    finally:
        tracemalloc.stop()
