"""Labelled texts that several libraries write."""

from __future__ import annotations

import gzip
import json
import re

import pyarrow
import pyarrow.parquet
import pytest
from support.refusal import refusal

from bertfast.config import LabelColumns
from bertfast.data.readers.labelled import Labelled, read_labelled
from bertfast.errors import InputError

RECORDS = [{"text": 'It is "good", and\tlong.', "label": 1}, {"text": "bad", "label": 0}, {"text": "", "label": -1}]
EXPECTED = Labelled([record["text"] for record in RECORDS], ["1", "0", "-1"])

WRITE = {
    "a.jsonl": lambda path: path.write_text("\n".join(map(json.dumps, RECORDS))),
    "a.json": lambda path: path.write_text(json.dumps(RECORDS)),
    "a.json.gz": lambda path: path.write_bytes(gzip.compress("\n".join(map(json.dumps, RECORDS)).encode())),
    "a.tsv": lambda path: path.write_text('text\tlabel\n"It is ""good"", and\tlong."\t1\nbad\t0\n\t-1\n'),
    "a.csv": lambda path: path.write_text('label,text\n1,"It is ""good"", and\tlong."\n0,bad\n-1,\n'),
    "a.parquet": lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path),
}


@pytest.mark.parametrize("name", WRITE)
def test_texts_and_labels_are_read_as_written(tmp_path, name, said):
    WRITE[name](tmp_path / name)
    assert read_labelled(tmp_path / name, LabelColumns(), ",") == EXPECTED
    assert said == [f"{tmp_path / name}: 3 texts ('text'), 3 labels ('label')"]


@pytest.mark.parametrize(
    ("header", "columns", "expected"),
    [
        ("text,label", {}, ("t0", "t1")),
        ("label,sentence", {}, ("t1", "t0")),
        ("sentence,label", {}, ("t0", "t1")),
        ("stars,text", {}, ("t1", "t0")),
        ("review,stars", {}, ("t0", "t1")),
        ("label,text", {"text_column": "label"}, "'label' cannot be both text and label: name another --label-column"),
        ("stars,review", {"text_column": "review"}, ("t1", "t0")),
        ("stars,review", {"label_column": "stars"}, ("t1", "t0")),
        ("id,text,label", {}, ("t1", "t2")),
        ("id,text,stars", {"label_column": "stars"}, ("t1", "t2")),
        ("id,body,label", {"text_column": "body"}, ("t1", "t2")),
        ("id,body,label", {}, "no column 'text'; there are 'id', 'body', 'label': name one with --text-column"),
        ("id,text,stars", {}, "no column 'label'; there are 'id', 'text', 'stars': name one with --label-column"),
        ("text,label", {"label_column": "x"}, "no column 'x'; there are 'text', 'label': name one with --label-column"),
        ("text,label", {"text_column": "x"}, "no column 'x'; there are 'text', 'label': name one with --text-column"),
        ("text", {}, "no column 'label'; there are 'text': name one with --label-column"),
    ],
)
def test_columns(tmp_path, header, columns, expected):
    path = tmp_path / "a.csv"
    count = header.count(",") + 1
    path.write_text(f"{header}\n" + ",".join(f"t{i}" for i in range(count)) + "\n")
    if isinstance(expected, tuple):
        assert read_labelled(path, LabelColumns(**columns), ",") == Labelled([expected[0]], [expected[1]])
    else:
        with pytest.raises(InputError, match=re.escape(expected)):
            read_labelled(path, LabelColumns(**columns), ",")


def test_nested_columns_and_a_delimiter(tmp_path):
    records = [{"data": {"text": "one", "label": True}}, {"data": {"text": "two", "label": 0.5}}]
    columns = LabelColumns(text_column="data.text", label_column="data.label")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert read_labelled(tmp_path / "a.jsonl", columns, ",") == Labelled(["one", "two"], ["True", "0.5"])
    for record in records:
        record["data"]["label"] = str(record["data"]["label"])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet")
    assert read_labelled(tmp_path / "a.parquet", columns, ",") == Labelled(["one", "two"], ["True", "0.5"])
    (tmp_path / "a.csv").write_text("text;label\na, b;c\n")
    assert read_labelled(tmp_path / "a.csv", LabelColumns(), ";") == Labelled(["a, b"], ["c"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "text\tlabel\n", ": labels are read from .tsv, .csv, .jsonl, .json and .parquet, each also .gz or"),
        ("a.tsv", "", " holds no texts and labels: give a file with a record for each text"),
        ("a.tsv", "text\tlabel\n", " holds no texts and labels"),
        ("a.tsv", "text\tlabel\na\tb\nc\t\n", ":3: no label under 'label': add it, or remove the record"),
        ("a.tsv", "text\tlabel\na\tb\nc\t  \n", ":3: no label under 'label'"),
        ("a.jsonl", '{"text": "a", "label": NaN}', ":1: no label under 'label'"),
        ("a.tsv", "text\tlabel\na\tb\nc\n", ":3: a row of 1 fields, but the header has 2"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": null}', ":2: no label under 'label'"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"text": "b"}',
            ":2: no column 'label'; there are 'text': name one with",
        ),
        (
            "a.jsonl",
            '{"text": "a", "label": [1]}',
            ":1: 'label' holds a list, not a label: name another --label-",
        ),
        ("a.jsonl", '{"text": 7, "label": 1}', ":1: 'text' holds a number, not text: name another --text-column"),
        ("a.json", "[1]", ", record 1: a record is a JSON object, not a number"),
    ],
)
def test_an_error_names_the_line_or_record(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / name) + message)}"):
        read_labelled(tmp_path / name, LabelColumns(), ",")


def test_spaces_around_a_label_mean_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n one ,pos\ntwo, pos \n")
    assert read_labelled(tmp_path / "a.csv", LabelColumns(), ",") == Labelled([" one ", "two"], ["pos", "pos"])


def test_columns_that_no_option_names(tmp_path):
    (tmp_path / "a.csv").write_text("review,stars,date\nc,d,e\n")
    columns = re.escape(
        f"{tmp_path / 'a.csv'} has the columns 'review', 'stars', 'date': call the ones to read text and"
    )
    with pytest.raises(InputError, match=f"^{columns}"):
        read_labelled(tmp_path / "a.csv", None, ",")
    (tmp_path / "b.csv").write_text("stars,text,label\nc,d,e\n")
    assert read_labelled(tmp_path / "b.csv", None, ",") == Labelled(["d"], ["e"])


@pytest.mark.parametrize(
    ("between", "columns", "way_out"),
    [
        (";", LabelColumns(), "give --delimiter ';'"),
        ("|", LabelColumns(text_column="text"), "give --delimiter '|'"),
        ("\t", LabelColumns(), "give it a name that ends in .tsv"),
        (";", None, "put ',' between its fields"),
        ("\t", None, "give it a name that ends in .tsv"),
    ],
)
@pytest.mark.parametrize("text", ["good", "good, really"])
def test_another_delimiter(tmp_path, between, columns, way_out, text):
    path = tmp_path / "a.csv"
    path.write_text(f"text{between}label\n{text}{between}1\n")
    header = repr(f"text{between}label")
    assert refusal(read_labelled, path, columns, ",") == f"{path} has one column, {header}: {way_out}"


def test_texts_are_composed(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\ncafe\u0301,1\ncaf\u00e9,2\n", encoding="utf-8")
    assert read_labelled(tmp_path / "a.csv", LabelColumns(), ",").texts == ["caf\u00e9", "caf\u00e9"]


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"no such file: .*nowhere\.tsv"):
        read_labelled(tmp_path / "nowhere.tsv", LabelColumns(), ",")
    with pytest.raises(InputError, match=r"^/dev/null is a folder, pipe or device: name a file$"):
        read_labelled("/dev/null", LabelColumns(), ",")
