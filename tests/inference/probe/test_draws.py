"""Texts drawn for a probe of labels have the shares of all labels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bertfast.inference.probe import draws


def test_any_first_and_last_part_has_the_shares_of_all_labels():
    labels = np.array(["a"] * 600 + ["b"] * 300 + ["c"] * 96 + ["d"] * 3 + ["e"])
    order = draws._stratified_order(labels, np.random.default_rng(0))
    assert sorted(order) == list(range(1000))
    assert Counter(labels[order[:9]]) == {"a": 2, "b": 2, "c": 2, "d": 2, "e": 1}
    for part in (order[:100], order[-200:], order[:500]):
        counts = Counter(labels[part])
        for label, share in {"a": 0.6, "b": 0.3, "c": 0.096}.items():
            assert counts[label] == pytest.approx(share * len(part), abs=3)
    other = draws._stratified_order(labels, np.random.default_rng(1))
    assert set(order[:100]) != set(other[:100])
