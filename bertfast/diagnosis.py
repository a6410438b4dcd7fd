"""Whether a run learns: its masked-LM loss beside what the words' frequencies alone give."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def unigram_entropy(token_counts: npt.NDArray[Any]) -> float:
    """-sum p log p of the corpus's token frequencies, in nats: the loss of a model that knows nothing else."""
    return float(-_x_log_x(token_counts / token_counts.sum()).sum())


def _x_log_x(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """x log x, and 0 for 0."""
    logs: npt.NDArray[np.float64] = np.log(x, out=np.zeros(len(x)), where=x > 0)
    return x * logs
