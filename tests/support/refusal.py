"""What a user is told of a mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bertfast.errors import InputError


def refusal(call: Callable[..., object], *arguments: Any, **settings: Any) -> str:
    """The one line with which the call is refused."""
    with pytest.raises(InputError) as refused:
        call(*arguments, **settings)
    assert "\n" not in str(refused.value)
    return str(refused.value)
