"""Whether a run learns from context: compares its masked-LM loss with what a model reaches without any."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.config import TrainConfig
from bertfast.reporting.metrics import Record

# Limits on the window of latest steps, which is a fifth of the run.
_FEWEST, _MOST = 20, 2000


class Diagnosis:
    """Reports, once, that a run's masked-LM loss is stuck at a level that needs no context.

    It looks at a window of the latest steps, once that many have followed the warm-up, and compares the mean losses of
    its two halves, with their standard error. A run is stuck if the second mean

    - is with certainty (two standard errors) at most 2% below the unigram entropy, and not certainly lower than the
      first mean; at the end of the run the former alone is enough;
    - or is no lower than `contextless_loss`, and with certainty at most 0.5% of the unigram entropy lower than the
      first mean.

    A healthy run starts at the unigram entropy too, but its loss falls. If the batches are too small or the steps too
    few to tell, there is no report.
    """

    def __init__(self, entropy: float, contextless: float, config: TrainConfig) -> None:
        """`entropy` and `contextless`: what the two functions below give for the training corpus."""
        self._config = config
        self._entropy = entropy
        self._contextless = contextless
        self._window = min(_MOST, max(_FEWEST, config.steps // 10 * 2))  # even
        self._reported = False

    def after(self, records: Sequence[Record]) -> str | None:
        """The warning to log after the last of these steps, if any."""
        done, window = records[-1].step + 1, self._window
        ended = done == self._config.steps
        seen = min(len(records), done - self._config.warmup_steps)
        if self._reported or seen < window or not (ended or done % (window // 4) == 0):
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
        self._reported = True
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
    """-sum p log p of the corpus's token frequencies, in nats: the loss of a model that knows only those."""
    return float(-_x_log_x(token_counts / token_counts.sum()).sum())


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
    kept = max(0.0, 1 - mask_share - random_share)  # rounding can make it negative
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
