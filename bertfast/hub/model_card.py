"""The file of a run's model card, README.md.

It ends with a digest of itself. So a card that the user has edited is recognised, and kept.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from bertfast.files import whole_file
from bertfast.hub.card_text import CardFacts, card_text, with_forms
from bertfast.hub.forms import FORMS

logger = logging.getLogger(__name__)

FILE = "README.md"

_DIGEST = "\ndigest of the lines above: "


def save_card(folder: Path, facts: CardFacts) -> None:
    """Writes the card into `folder`, unless a card there was edited, or written by someone else."""
    path = folder / FILE
    if path.exists() and _unedited(path) is None:
        logger.info("%s was edited, or is not bertfast's: it is left as it is", path)
    else:
        _write(path, card_text(facts))


def name_forms(folder: Path) -> None:
    """Updates the folder's card to say how to use the forms that the folder was exported to.

    Does nothing without a card, or if it was edited or written by someone else.
    """
    path = folder / FILE
    card = _unedited(path)
    if card is not None:
        _write(path, card)
    elif path.exists():
        logger.info("%s was edited, or is not bertfast's: it is left without the export", path)


def _write(path: Path, card: str) -> None:
    card = with_forms(card, {name: form for name, form in FORMS.items() if form.is_in(path.parent)})
    with whole_file(path) as partial:
        partial.write_bytes(f"{card}{_DIGEST}{_digest(card)} -->\n".encode())


def _unedited(path: Path) -> str | None:
    """The card without its digest; None if there is none, or if it is not exactly as bertfast wrote it."""
    try:
        content = path.read_bytes().decode()  # not read_text, which converts line ends
    except (OSError, UnicodeDecodeError):
        return None
    card, _, end = content.rpartition(_DIGEST)
    return card if end == f"{_digest(card)} -->\n" else None


def _digest(card: str) -> str:
    return hashlib.blake2b(card.encode(), digest_size=16).hexdigest()
