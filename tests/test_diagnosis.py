"""What a masked-LM loss is measured against."""

import math

import numpy as np
import pytest

from bertfast.diagnosis import unigram_entropy


def test_unigram_entropy():
    assert unigram_entropy(np.array([5, 5, 0, 5, 5])) == pytest.approx(math.log(4))
