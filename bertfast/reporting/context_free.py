"""The masked-LM losses of models that use no context, with which a run's loss is compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.config import SamplerConfig

Floats = npt.NDArray[np.float64]


class ContextFree(NamedTuple):
    """Masked-LM losses on a text, in nats, of models that know how often each token occurs in the training corpus."""

    frequencies: float
    """Of a model that knows nothing else."""
    visible: float
    """Of a model that also sees the token at the predicted position, where no [MASK] hides it."""

    @classmethod
    def on(
        cls,
        text_counts: npt.NDArray[Any],
        known_counts: npt.NDArray[Any],
        specials: Iterable[int],
        masking: SamplerConfig,
    ) -> ContextFree:
        """The losses on held-out text, from the counts (vocab_size,) of its tokens and of the corpus's.

        The model adds one to each of the corpus's counts, as the initial output bias does. Its loss is at least that of
        a model that knows the text's own frequencies.
        """
        p, known = text_counts / text_counts.sum(), (known_counts + 1) / (known_counts + 1).sum()
        return cls(-float(_x_log_y(p, known).sum()), _visible_loss(p, known, specials, masking))

    @classmethod
    def within(cls, counts: npt.NDArray[Any], specials: Iterable[int], masking: SamplerConfig) -> ContextFree:
        """The losses on the training corpus itself."""
        return cls(unigram_entropy(counts), contextless_loss(counts, specials, masking))


def unigram_entropy(token_counts: npt.NDArray[Any]) -> float:
    """-sum p log p of the corpus's token frequencies, in nats: the loss of a model that knows only those."""
    p = token_counts / token_counts.sum()
    return -float(_x_log_y(p, p).sum())


def contextless_loss(token_counts: npt.NDArray[Any], specials: Iterable[int], masking: SamplerConfig) -> float:
    """The least masked-LM loss, in nats, of a model that sees only the predicted position.

    If the position holds [MASK], the model knows only the frequencies p, and the loss is their entropy H. Otherwise it
    holds a token v, which was kept (a share `kept` of all predictions) or drawn from the non-special tokens (q_v each,
    `masking.random_share` in total). So the joint probability of v and the label l is P(v, v) = kept p_v + q_v p_v, and
    P(v, l) = q_v p_l for l != v, and the loss is the entropy of l given v:

        sum_v (sum_l P(v, l)) log (sum_l P(v, l)) - sum_{v, l} P(v, l) log P(v, l).

    With BERT's 80/10/10 that is about 0.9 H: a frequent token was probably kept, a rare one probably drawn.
    """
    p = token_counts / token_counts.sum()
    return _visible_loss(p, p, specials, masking)


def _visible_loss(p: Floats, known: Floats, specials: Iterable[int], masking: SamplerConfig) -> float:
    """As `contextless_loss`, if the labels have the frequencies `p` and the model takes them to be `known`."""
    kept = max(0.0, 1 - masking.mask_share - masking.random_share)  # rounding can make it negative
    q = np.full(len(p), float(masking.random_share))
    q[list(specials)] = 0
    q /= np.count_nonzero(q) or 1
    entropy = -_x_log_y(p, known).sum()
    # The sum over v and l != v of q_v p_l log(q_v known_l), as a vector over v, without a table of all pairs.
    others = _x_log_y(q, q) * (1 - p) - q * (entropy + _x_log_y(p, known))
    visible = _x_log_y(kept * p + q, kept * known + q).sum() - _x_log_y((kept + q) * p, (kept + q) * known).sum()
    return float(masking.mask_share * entropy + visible - others.sum())


def _x_log_y(x: Floats, y: Floats) -> Floats:
    """x log y, and 0 for x = 0."""
    logs: Floats = np.log(y, out=np.zeros(len(y)), where=x > 0)
    return x * logs
