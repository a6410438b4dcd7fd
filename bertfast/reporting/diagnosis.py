"""Whether a run learns from context: its masked-LM loss beside what can be had without reading any."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.config import TrainConfig
from bertfast.reporting.metrics import Record

# The latest steps that are judged together: a fifth of the run, but no fewer and no more than these.
_FEWEST, _MOST = 20, 2000


class Diagnosis:
    """Tells, once, that a run's masked-LM loss sits where no context is needed to bring it.

    Judged are the latest steps, once so many have followed the warm-up, by the mean losses of their two halves and the
    standard error that the spread of the losses gives these. Stuck is a run of which the latter mean

    - is certain (two standard errors) to lie no more than 2% below the unigram entropy, while it is not certainly lower
      than the former; at the run's end the first of these is enough;
    - or lies no lower than `contextless_loss`, while it is certain to be at most 0.5% lower than the former.

    A healthy run begins at the unigram entropy too, but falls; and where batches are too small or steps too few to say,
    nothing is said.
    """

    def __init__(self, entropy: float, contextless: float, config: TrainConfig) -> None:
        """`entropy` and `contextless`: what the two functions below give for the corpus that is trained on."""
        self._config = config
        self._entropy = entropy
        self._contextless = contextless
        self._window = min(_MOST, max(_FEWEST, config.steps // 10 * 2))  # even
        self._told = False

    def after(self, records: Sequence[Record]) -> str | None:
        """What to tell after the last of these steps, if anything."""
        done, window = records[-1].step + 1, self._window
        ended = done == self._config.steps
        seen = min(len(records), done - self._config.warmup_steps)
        if self._told or seen < window or not (ended or done % (window // 4) == 0):
            return None
        halves = np.array([record.mlm_loss for record in records[-window:]]).reshape(2, -1)
        before, now = halves.mean(1).tolist()
        error = math.sqrt(halves.var(1, ddof=1).mean() / halves.shape[1])
        uncertain = 2 * math.sqrt(2) * error  # of the difference
        if now - 2 * error >= 0.98 * self._entropy and (before - now <= uncertain or ended):
            bound = f"what the words' frequencies alone give ({self._entropy:.2f}, the corpus's unigram entropy)"
        elif now >= self._contextless and before - now + uncertain <= 0.005 * self._entropy:
            bound = (
                f"no lower than the words' frequencies and the predicted words that are left visible bring it "
                f"({self._contextless:.2f})"
            )
        else:
            return None
        self._told = True
        return f"the MLM loss sits at {now:.2f}, {bound}: nothing is learned from context. {self._advice(records)}"

    def _advice(self, records: Sequence[Record]) -> str:
        config = self._config
        losses = np.array([record.mlm_loss for record in records])
        peak = np.add.reduceat(losses, range(0, len(losses), 10)).max() / 10
        if peak > 1.03 * self._entropy:
            rate = f"the loss rose to {peak:.2f}, so a lower --lr (now {config.lr:g})"
        else:
            rate = f"another --lr (now {config.lr:g}): lower, or, where the loss never moved, higher"
        return (
            f"What usually helps: {rate}; a longer --warmup (now {config.warmup:g} of the steps), above all with many "
            f"layers; more --steps; a larger --batch-size (now {config.batch_size}); text without repeated lines "
            "(--deduplicate)"
        )


def unigram_entropy(token_counts: npt.NDArray[Any]) -> float:
    """-sum p log p of the corpus's token frequencies, in nats: the loss of a model that knows nothing else."""
    return float(-_x_log_x(token_counts / token_counts.sum()).sum())


def contextless_loss(
    token_counts: npt.NDArray[Any], specials: Iterable[int], mask_share: float, random_share: float
) -> float:
    """The least masked-LM loss, in nats, of a model that sees nothing of the text but the predicted position itself.

    Where that holds [MASK] the frequencies p are all there is to know, and the loss is their entropy H. Elsewhere it
    holds a token v, which was left there (of all predictions the share `kept`) or drawn from the tokens that aren't
    special (q_v each, together `random_share`). So the label l is v with the joint probability
    P(v, v) = kept p_v + q_v p_v and any other with P(v, l) = q_v p_l, and the loss is the entropy of l given v:

        sum_v (sum_l P(v, l)) log (sum_l P(v, l)) - sum_{v, l} P(v, l) log P(v, l).

    With BERT's 80/10/10 that is about 0.9 H: a token left in place is told from a drawn one by its frequency.
    """
    p = token_counts / token_counts.sum()
    kept = max(0.0, 1 - mask_share - random_share)  # which rounding can leave below 0
    q = np.full(len(p), float(random_share))
    q[list(set(specials))] = 0
    q /= np.count_nonzero(q) or 1
    entropy = -_x_log_x(p).sum()
    # The sum over l != v of q_v p_l log(q_v p_l), without a table of all pairs.
    others = _x_log_x(q) * (1 - p) - q * (entropy + _x_log_x(p))
    visible = _x_log_x(kept * p + q).sum() - _x_log_x((kept + q) * p).sum() - others.sum()
    return float(mask_share * entropy + visible)


def _x_log_x(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """x log x, and 0 for 0."""
    logs: npt.NDArray[np.float64] = np.log(x, out=np.zeros(len(x)), where=x > 0)
    return x * logs
