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
    def of(
        cls,
        text_counts: npt.NDArray[Any],
        known_counts: npt.NDArray[Any],
        specials: Iterable[int],
        masking: SamplerConfig,
    ) -> ContextFree:
        """The losses on a text of models that take its tokens to be as frequent as `known_counts` says.

        Args:
            text_counts: (vocab_size,), of the text's tokens.
            known_counts: (vocab_size,), positive where the text's are. With the text's own the losses are the least.
            specials: the ids of the special tokens.
            masking: how the text is masked.
        """
        p, known = text_counts / text_counts.sum(), known_counts / known_counts.sum()
        return cls(-float(_x_log_y(p, known).sum()), _visible_loss(p, known, specials, masking))


def unigram_entropy(token_counts: npt.NDArray[Any]) -> float:
    """-sum p log p of the corpus's token frequencies, in nats: the loss of a model that knows only those."""
    p = token_counts / token_counts.sum()
    return -float(_x_log_y(p, p).sum())


def _visible_loss(p: Floats, known: Floats, specials: Iterable[int], masking: SamplerConfig) -> float:
    """`ContextFree.visible` for labels of the frequencies `p`, which the model takes to be `known`.

    If the position holds [MASK], the model knows only the frequencies, and the loss is their entropy H. Otherwise it
    holds a token v, which was kept (a share `kept` of all predictions) or drawn from the non-special tokens (q_v each,
    `masking.random_share` in total). So the joint probability of v and the label l is P(v, v) = kept p_v + q_v p_v, and
    P(v, l) = q_v p_l for l != v, and with `known` = p the loss is the entropy of l given v:

        sum_v (sum_l P(v, l)) log (sum_l P(v, l)) - sum_{v, l} P(v, l) log P(v, l).

    With BERT's 80/10/10 that is about 0.9 H: a frequent token was probably kept, a rare one probably drawn.
    """
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
