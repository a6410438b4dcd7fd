"""The values of a record's columns, which can be nested, and the errors for those that are missing or hold no text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bertfast.errors import InputError

TEXT_COLUMN = "--text-column"


def text_of(record: dict[str, Any], column: str, where: object) -> str:
    """A record's text; an empty string for null. Raises `InputError` if the column is missing or holds no text."""
    value = value_of(record, column, where)
    if isinstance(value, list):
        return "\n\n".join(_checked(item, column, where, "a list with ") for item in value if item is not None)
    return "" if value is None else _checked(value, column, where)


def value_of(record: dict[str, Any], column: str, where: object, option: str = TEXT_COLUMN) -> Any:
    """A record's value under a key or a nested key. Raises `InputError` that names the `option` to change."""
    if column in record:
        return record[column]
    value: Any = record
    passed = ""
    for key in column.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise InputError(f"{where}: {passed[:-1]!r} holds {json_type(value)}, not an object: name another {option}")
        if key not in value:
            raise missing_column(where, column, (f"{passed}{name}" for name in value), option)
        value = value[key]
        passed += f"{key}."
    return value


def _checked(value: Any, column: str, where: object, container: str = "") -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{where}: {column!r} holds {container}{json_type(value)}, not text: name another {TEXT_COLUMN}"
        )
    if "\0" in value:
        raise InputError(f"{where}: the text holds a NUL character, so it is not text: fix that record")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise InputError(f"{where}: {half} is half of a surrogate pair, not a character: fix that record") from None
    return value


def missing_column(where: object, column: str, columns: Iterable[str], option: str = TEXT_COLUMN) -> InputError:
    """The error for a column that is not among `columns`."""
    known = ", ".join(map(repr, columns)) or "none"
    return InputError(f"{where}: no column {column!r}; there are {known}: name one with {option}")


def json_type(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
    }
    return names.get(type(value), "null" if value is None else type(value).__name__)
