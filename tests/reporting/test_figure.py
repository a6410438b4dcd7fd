"""Figures in words and in a table."""

from __future__ import annotations

import pytest

from bertfast.reporting.figure import Figure, table


@pytest.mark.parametrize(
    ("figure", "alone", "difference"),
    [
        (Figure(11.06, 1.94), "11.1 ± 1.9", "11.1 ± 1.9 points above TF-IDF"),
        (Figure(-5, 2), "-5.0 ± 2.0", "5.0 ± 2.0 points below TF-IDF"),
        (Figure(0, 0), "0.0 ± 0.0", "0.0 ± 0.0 points above TF-IDF"),
        (Figure(100, 0.04), "100.0 ± 0.0", "100.0 ± 0.0 points above TF-IDF"),
    ],
)
def test_in_words(figure, alone, difference):
    assert str(figure) == alone
    assert figure.beside("TF-IDF") == difference


@pytest.mark.parametrize(
    ("value", "margin", "certain"), [(2.1, 2, True), (2, 2, False), (-3, 2, False), (0, 0, False), (0.1, 0, True)]
)
def test_a_figure_is_certain_beyond_its_margin(value, margin, certain):
    assert Figure(value, margin).certainly_positive is certain


def test_a_table():
    """The first column is aligned to the left, the others to the right; cells are never cut."""
    assert table([["", "100 labels", "n"], ["bag of words", "1.0 ± 0.5", ""], ["x", "", "12,345"]]) == [
        "              100 labels       n",
        "bag of words   1.0 ± 0.5        ",
        "x                         12,345",
    ]


def test_tables_of_one_column_and_of_no_row():
    assert table([["a"], ["bcd"]]) == ["a  ", "bcd"]
    assert table([]) == []


def test_rows_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="shorter"):
        table([["a", "b"], ["c"]])
