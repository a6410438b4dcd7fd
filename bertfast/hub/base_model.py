"""The name on the Hugging Face Hub of the model that a folder holds or was trained from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

# owner/name, or only a name, as the oldest models have.
_ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_NAME_IN_CARD = re.compile(r"""^base_model:(?:\s*-)?[ ]*["']?([^\s"']+)["']?[ ]*$""", re.MULTILINE)


def name_on_the_hub(folder: Path, config: dict[str, Any]) -> str:
    """The Hub's name of a folder's model, or of the model that it was trained from; empty if that is unknown.

    It comes from the folder's path in the Hub's cache (models--OWNER--NAME/snapshots/...), from the model card, or from
    `config`, the content of config.json: transformers 4 wrote there the name or path that the model was loaded by.
    """
    in_cache = re.fullmatch("models--(.+)/snapshots/.+", "/".join(folder.absolute().parts[-3:]))
    name = in_cache[1].replace("--", "/") if in_cache else _name_in_card(folder / "README.md")
    if name is None:
        name = config.get("_name_or_path")
        # Unlike Path.exists, os.path.exists is False for a name too long for a path.
        if not isinstance(name, str) or not _ON_THE_HUB.fullmatch(name) or os.path.exists(name):  # noqa: PTH110
            return ""
    return name if _ON_THE_HUB.fullmatch(name) else ""


def _name_in_card(path: Path) -> str | None:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    match = _NAME_IN_CARD.search(content.split("\n---", 1)[0]) if content.startswith("---") else None
    return match[1] if match else None
