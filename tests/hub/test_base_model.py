"""A model's name on the Hub. tests/hub/test_model_card.py has the way from a folder to the card."""

from __future__ import annotations

import pytest

from bertfast.hub.base_model import name_on_the_hub


@pytest.mark.parametrize(
    ("name", "expected"), [("owner/model", "owner/model"), ("x" * 300, "x" * 300), ("here", ""), (None, ""), (7, "")]
)
def test_the_name_in_a_config(tmp_path, monkeypatch, name, expected):
    """Any name, also one too long for a path, but no path that exists."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert name_on_the_hub(tmp_path, {"_name_or_path": name}) == expected
