"""The masked-LM losses that need no context: what a run's loss is measured against."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

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
        mask_share: float,
        random_share: float,
    ) -> ContextFree:
        """On held-out text; both counts (vocab_size,). Like the model's first output bias, each token counts once more.

        That is no less than the text's own frequencies would give, and the least that is to be had from the corpus's.
        """
        p, known = text_counts / text_counts.sum(), (known_counts + 1) / (known_counts + 1).sum()
        return cls(-float(_x_log_y(p, known).sum()), _visible_loss(p, known, specials, mask_share, random_share))

    @classmethod
    def within(
        cls, counts: npt.NDArray[Any], specials: Iterable[int], mask_share: float, random_share: float
    ) -> ContextFree:
        """On the training corpus itself."""
        return cls(unigram_entropy(counts), contextless_loss(counts, specials, mask_share, random_share))


def unigram_entropy(token_counts: npt.NDArray[Any]) -> float:
    """-sum p log p of the corpus's token frequencies, in nats: the loss of a model that knows only those."""
    p = token_counts / token_counts.sum()
    return -float(_x_log_y(p, p).sum())


def contextless_loss(
    token_counts: npt.NDArray[Any], specials: Iterable[int], mask_share: float, random_share: float
) -> float:
    """The least masked-LM loss, in nats, of a model that sees only the predicted position.

    If the position holds [MASK], the model knows only the frequencies p, and the loss is their entropy H. Otherwise it
    holds a token v, which was kept (a share `kept` of all predictions) or drawn from the non-special tokens (q_v each,
    `random_share` in total). So the joint probability of v and the label l is P(v, v) = kept p_v + q_v p_v, and
    P(v, l) = q_v p_l for l != v, and the loss is the entropy of l given v:

        sum_v (sum_l P(v, l)) log (sum_l P(v, l)) - sum_{v, l} P(v, l) log P(v, l).

    With BERT's 80/10/10 that is about 0.9 H: its frequency tells a kept token from a drawn one.
    """
    p = token_counts / token_counts.sum()
    return _visible_loss(p, p, specials, mask_share, random_share)


def _visible_loss(p: Floats, known: Floats, specials: Iterable[int], mask_share: float, random_share: float) -> float:
    """As in `contextless_loss`: labels come as `p` says, and the model's logarithms are those of `known`."""
    kept = max(0.0, 1 - mask_share - random_share)  # rounding can make it negative
    q = np.full(len(p), float(random_share))
    q[list(set(specials))] = 0
    q /= np.count_nonzero(q) or 1
    entropy = -_x_log_y(p, known).sum()
    # The sum over l != v of q_v p_l log(q_v known_l), without a table of all pairs.
    others = _x_log_y(q, q) * (1 - p) - q * (entropy + _x_log_y(p, known))
    visible = _x_log_y(kept * p + q, kept * known + q).sum() - _x_log_y((kept + q) * p, (kept + q) * known).sum()
    return float(mask_share * entropy + visible - others.sum())


def _x_log_y(x: Floats, y: Floats) -> Floats:
    """x log y, and 0 for x = 0."""
    logs: Floats = np.log(y, out=np.zeros(len(y)), where=x > 0)
    return x * logs
