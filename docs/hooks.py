"""mkdocs hooks: they add content from elsewhere in the repository when the site is built.

Files outside docs/ become pages, and links between files become links between pages. The comments
`<!-- options: pretrain -->` and `<!-- settings: TrainConfig -->` in a page are replaced by the options of the command
and by the fields of the settings class, taken from the code.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import posixpath
import re
from collections.abc import Iterator
from typing import Any

import bertfast.config

# Pages made from files outside docs/: the page's path on the site, and the file's path in the repository.
OUTSIDE = {
    "benchmarks.md": "bench/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
_PAGES = {file: page for page, file in OUTSIDE.items()}


def on_files(files: Any, config: Any) -> None:
    from mkdocs.structure.files import File  # here, so that tests of the other functions need no mkdocs

    root = posixpath.dirname(config.config_file_path)
    for page, file in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=posixpath.join(root, file)))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return expanded(relinked(markdown, page.file.src_uri))


def relinked(markdown: str, page: str) -> str:
    """The text of a page, with links to files of the repository turned into links to pages."""
    folder = posixpath.dirname(OUTSIDE.get(page, f"docs/{page}"))

    def link(match: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join(folder, match[1]))
        if file not in _PAGES and not file.startswith("docs/"):
            return match[0]  # not a page: mkdocs warns about it
        target = _PAGES.get(file, file.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(page) or '.')}"

    return re.sub(r"\]\((?!\w+:)([^)#\s]+\.md)", link, markdown)


def expanded(markdown: str) -> str:
    """The text with its `options` and `settings` comments replaced by their content."""
    content = {"options": options, "settings": settings}
    return re.sub(
        r"^<!-- (options|settings): (\w+) -->$",
        lambda match: "\n".join(content[match[1]](match[2])),
        markdown,
        flags=re.M,
    )


# ---- the options of a command


def options(command: str) -> Iterator[str]:
    """The lines of Markdown that describe a command's options, below its heading."""
    return _options(importlib.import_module(f"bertfast.{command}")._parser(), 3)


def _options(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    yield from (parser.description or "", "")
    subcommands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not subcommands:
        required = [_name(action) for action in parser._actions if action.required or not action.option_strings]
        yield from ("```text", " ".join([parser.prog, "[options]", *required]), "```", "")
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest not in ("help", "quiet", "command")]
        if actions and group.title not in ("positional arguments", "options"):
            title, parenthesis, note = (group.title or "").partition(" (")
            yield from (f"{'#' * level} {title[0].upper()}{title[1:]}", "")
            if note:
                yield from (_text(parenthesis.strip() + note), "")
        for action in actions:
            yield from (f"`{_name(action)}`", f":   {_text(_help(parser, action))}", "")
    for action in subcommands:
        for name, subparser in action.choices.items():
            yield from (f"{'#' * level} {name}", "")
            yield from _options(subparser, level + 1)


def _name(action: argparse.Action) -> str:
    """The argument as on the command line: `--objective nsp|sop|none`, `--eval, --no-eval`, `text`."""
    value = "|".join(action.choices) if action.choices else action.metavar or ""
    if not action.option_strings:
        return f"[{action.dest}]" if action.nargs == "?" else str(value)
    return ", ".join(action.option_strings) + (f" {value}" if value else "")


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action)


# ---- the fields of a class of settings


def settings(name: str) -> Iterator[str]:
    """The lines of Markdown that list the class's fields: type, default, choices, meaning."""
    for field in dataclasses.fields(getattr(bertfast.config, name)):
        choices = ", ".join(map(repr, field.metadata.get("choices") or ()))
        meaning = _in_python(field.metadata.get("help", "as in transformers' BertConfig"))
        yield f"`{field.name}: {field.type} = {field.default!r}`"
        yield from (f":   {_text(f'one of {choices}. {meaning}' if choices else meaning)}", "")


def _in_python(help: str) -> str:
    """A help text with each flag replaced by the field that it sets."""
    names = {
        bertfast.config.flag(each, field.name).removeprefix("--"): field.name
        for each in (bertfast.config.BertConfig, bertfast.config.TrainConfig, bertfast.config.CorpusConfig)
        for field in dataclasses.fields(each)
    }

    def name(match: re.Match[str]) -> str:
        flag = match[1]
        if flag.startswith("no-") and flag not in names:
            return f"{names[flag.removeprefix('no-')]}=False"
        return names.get(flag, match[0])

    return re.sub(r"--([a-z][a-z-]*)", name, help)


def _text(help: str) -> str:
    """A help text as Markdown, with flags as code."""
    escaped = re.sub(r"([\\`*_\[\]<>])", r"\\\1", help)
    return re.sub(r"(--[a-z][a-z-]*)", r"`\1`", escaped)
