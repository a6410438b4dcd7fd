"""Reads the prose in a Python file: the topics of Python's reference and docstrings, without code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

_BULLET = re.compile(r"\A([*\-•]|\(?\w{1,2}[.)])\s+")
_WORD = re.compile(r"[\"'“‘(]*[A-Za-z]+(['’\-/][A-Za-z]+)*[\"'”’).,;:!?]*")


def prose(source: bytes) -> Iterator[str]:
    """The prose of a Python file: one string per paragraph, and an empty string after each topic.

    A document is a topic of Python's reference (in `pydoc_data/topics.py`), or all docstrings of a module.
    """
    tree = ast.parse(source)
    for topic in _topics(tree):
        yield from _paragraphs(topic)
        yield ""
    for docstring in _docstrings(tree):
        yield from _paragraphs(docstring)


def _topics(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "topics":
            return list(ast.literal_eval(node.value).values())
    return []


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The docstrings in source order. Only definitions directly in a body are visited, to avoid walking all code."""
    yield ast.get_docstring(node) or ""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child)


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a docstring that are prose: no code, signatures, tables or headings."""
    for block in re.split(r"\n\s*\n", text):
        words = _BULLET.sub("", block.strip()).split()
        plain = sum(1 for word in words if _WORD.fullmatch(word))
        is_sentence = len(words) >= 4 and words[0][:1].isalpha() and words[-1].endswith((".", "!", "?", ".)", '."'))
        if is_sentence and plain >= 0.8 * len(words) and ">>>" not in words and "::=" not in words:
            yield " ".join(words)
