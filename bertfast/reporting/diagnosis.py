"""Diagnoses a run by its figures: warnings, each logged once, that say what to do."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.config import TrainConfig
from bertfast.reporting.context_free import ContextFree
from bertfast.reporting.metrics import Evaluation, History, Record

# The window of latest steps that is judged is a fifth of the run, or ten minutes if that is less, within these limits.
_FEWEST, _MOST, _SECONDS = 20, 2000, 600

_LEAST_FALL = 0.005  # as a share of the entropy: a loss that falls by less is stuck
_RISE = 0.01  # as a share of the lowest held-out loss: if two evaluations in a row are this far above it, it rises
_MOST_READINGS = 40  # of a text, about as often as BERT's training read its own
_MOST_WEIGHTS = 10  # in the layers, for each token of the text
_LONG = 86_400  # seconds
_PACED = 3  # the fewest intervals between steps from which the pace is estimated


class Subject(NamedTuple):
    """The texts and the model of a run."""

    training: ContextFree
    held_out: ContextFree | None
    tokens: int
    """Tokens of the corpus."""
    readings: float
    """How often the whole run reads the corpus: the tokens of its batches, divided by those of the corpus."""
    weights: int
    """Weights in the model's layers, or 0 for a model that was trained before."""


class Diagnosis:
    """Diagnoses a run; docs/training.md has the criteria.

    The warnings depend on the time that steps take, so they belong in the log, not in a file that must be exact.
    """

    def __init__(self, subject: Subject, config: TrainConfig) -> None:
        self._subject, self._config = subject, config
        self._warned: set[str] = set()
        self._done = self._judged = 0  # steps
        self._seconds = 0.0
        self._intervals: deque[float] = deque(maxlen=9)  # the latest, in seconds a step

    def before(self) -> list[str]:
        """The warnings to log before the first step."""
        subject, warnings = self._subject, []
        if subject.weights > _MOST_WEIGHTS * subject.tokens:
            warnings.append(
                f"the model's layers have {subject.weights:,} weights, the text {subject.tokens:,} tokens: too few for "
                "such a model. What usually helps: a smaller --preset; more text; a trained model to start from "
                "(--init)"
            )
        return warnings + self._read_too_often()

    def set_length(self, config: TrainConfig, readings: float) -> list[str]:
        """Sets the run's number of steps, and how often they read the corpus. Returns the warnings to log."""
        self._config, self._subject = config, self._subject._replace(readings=readings)
        return self._read_too_often()

    def _read_too_often(self) -> list[str]:
        subject = self._subject
        if subject.readings <= _MOST_READINGS:
            return []
        return [
            f"the run reads its {subject.tokens:,} tokens {subject.readings:.0f} times: after some {_MOST_READINGS} "
            f"times there is little left to learn. What usually helps: fewer --steps (now {self._config.steps:,}); "
            f"more text{'' if subject.held_out else '; --eval, which shows when to stop'}"
        ]

    def after(self, history: History, seconds: float) -> list[str]:
        """The warnings to log, `seconds` after this process began its first step."""
        if not history.records or history.records[-1].step < self._done:
            return []
        done = history.records[-1].step + 1
        if self._done:
            self._intervals.append((seconds - self._seconds) / (done - self._done))
        self._done, self._seconds = done, seconds
        checks: dict[str, Callable[[], str | None]] = {
            "time": self._too_long,
            "context": lambda: self._without_context(history),
            "held-out": lambda: self._rising(history),
        }
        warnings = []
        for name, check in checks.items():
            if name not in self._warned and (warning := check()):
                self._warned.add(name)
                warnings.append(warning)
        return warnings

    def _pace(self) -> float:
        """Seconds a step; 0 as long as too few are known. A median, since a first step compiles and some evaluate."""
        return median(self._intervals) if len(self._intervals) >= _PACED else 0.0

    def _too_long(self) -> str | None:
        pace, left = self._pace(), self._config.steps - self._done
        if pace * left <= _LONG:
            return None
        days = pace * left / 86_400
        return (
            f"a step takes {pace:.2g} s, so the {left:,} steps that are left take {days:,.1f} days. What makes it "
            f"shorter: fewer --steps; a smaller --preset, --batch-size (now {self._config.batch_size}) or --max-len "
            f"(now {self._config.max_len}); a GPU or more workers (--gpus)"
        )

    def _without_context(self, history: History) -> str | None:
        """A warning if the masked-LM loss is stuck at a level that needs no context, or ends there."""
        config, records = self._config, history.records
        ended = self._done == config.steps
        seen = min(len(records), self._done - config.head_steps - config.warmup_steps)
        window = min(_MOST, config.steps // 5, int(_SECONDS / pace) if (pace := self._pace()) else _MOST)
        window = max(_FEWEST, window // 2 * 2)
        if ended:
            window = min(window, max(0, seen) // 2 * 2)
            return self._ending(history, window) if window >= _FEWEST else None
        if seen < window or self._done - self._judged < window // 4:
            return None
        self._judged = self._done
        latest = _Window.of(records[-window:])
        training = self._subject.training
        bound = _bound(latest.now, latest.error, training)
        # Three standard errors, since the check is repeated: with two, it would warn by chance about runs that learn.
        hardly_falls = latest.fall + 1.5 * latest.uncertain <= _LEAST_FALL * training.frequencies
        may_not_fall = latest.fall <= latest.uncertain and _is_at_frequencies(latest.now, latest.error, training)
        if bound is None or not (hardly_falls or may_not_fall):
            return None
        noise_hides_a_fall = latest.uncertain > _LEAST_FALL * training.frequencies
        if noise_hides_a_fall and self._subject.held_out and len(_comparable(history.evaluations)) < 2:
            return None  # two evaluations will tell
        if self._falls(history.evaluations, records[-window].step):
            return None
        return (
            f"the MLM loss sits at {latest.now:.2f}, and {bound}: nothing is learned from context so far. "
            f"{self._advice(records)}"
        )

    def _ending(self, history: History, window: int) -> str | None:
        """A warning if the loss after the last step is certainly not below a level that needs no context."""
        subject, records = self._subject, history.records
        latest = _Window.of(records[-window:])
        loss, error, bounds, where = latest.now, latest.error, subject.training, ""
        last = history.evaluations[-1] if history.evaluations else None
        if last is not None and last.step + 1 == self._done and subject.held_out and last.eval_examples:
            loss, bounds, where = last.eval_mlm_loss, subject.held_out, " on held-out text"
            error = latest.deviation * math.sqrt(self._config.batch_size / last.eval_examples)
        bound = _bound(loss, error, bounds)
        if bound is None or loss - 2 * error <= bounds.visible:
            return None
        steps = f"longer training (--steps, now {self._config.steps:,}): the loss was still falling"
        falls = latest.fall > latest.uncertain or self._falls(history.evaluations, records[-window].step)
        is_only_short = falls and not self._peak_if_it_rose(records)
        return (
            f"the run ends with an MLM loss of {loss:.2f}{where}, and {bound}: little is learned from context. "
            f"{f'What usually helps: {steps}' if is_only_short else self._advice(records)}"
        )

    def _falls(self, evaluations: Sequence[Evaluation], since: int) -> bool:
        """Whether the held-out loss fell at the latest evaluation, if that is not before the step `since`."""
        if not evaluations or evaluations[-1].step < since:
            return False
        losses = [entry.eval_mlm_loss for entry in _comparable(evaluations)[-2:]]
        return losses[0] - losses[-1] >= _LEAST_FALL * self._subject.training.frequencies

    def _rising(self, history: History) -> str | None:
        """A warning if the held-out loss rises while the training loss falls."""
        records, same = history.records, _comparable(history.evaluations)
        lowest = min(same, key=lambda entry: entry.eval_mlm_loss, default=None)
        if lowest is None or len(same) < 3 or lowest.step >= same[-2].step or same[-1].step + 1 != self._done:
            return None
        if min(entry.eval_mlm_loss for entry in same[-2:]) < (1 + _RISE) * lowest.eval_mlm_loss:
            return None
        size = min(_MOST, same[-1].step - same[-2].step)
        then = bisect.bisect_right(records, lowest.step, key=lambda record: record.step)
        early, late = _losses(records[max(0, then - size) : then]), _losses(records[-size:])
        if min(len(early), len(late)) < _FEWEST:
            return None
        error = math.sqrt(early.var(ddof=1) / len(early) + late.var(ddof=1) / len(late))
        if early.mean() - late.mean() <= 2 * error:
            return None
        readings = self._subject.readings * self._done / self._config.steps
        cause = (
            f"the model learns the text by heart, which it has read {readings:.1f} times. What usually helps: fewer "
            f"--steps ({lowest.step + 1:,} were enough); more text; a smaller --preset; more --dropout"
            if readings >= 2
            else "the two texts differ. What usually helps: text to evaluate on that is more like the --corpus, or the "
            "other way round"
        )
        return (
            f"the held-out MLM loss rose from {lowest.eval_mlm_loss:.2f} (after step {lowest.step + 1:,}) to "
            f"{same[-1].eval_mlm_loss:.2f} while the training loss fell: {cause}"
        )

    def _peak_if_it_rose(self, records: Sequence[Record]) -> float | None:
        """The highest training loss, if it is well above that of a model that knows only the words' frequencies."""
        losses = _losses(records)
        peak = float(np.add.reduceat(losses, range(0, len(losses), 10)).max() / 10)
        return peak if peak > 1.03 * self._subject.training.frequencies else None

    def _advice(self, records: Sequence[Record]) -> str:
        config = self._config
        if peak := self._peak_if_it_rose(records):
            rate = f"the loss rose to {peak:.2f}, so a lower --lr (now {config.lr:g})"
        else:
            rate = f"another --lr (now {config.lr:g}): lower, or, where the loss never moved, higher"
        return (
            f"What usually helps: {rate}; a longer --warmup (now {config.warmup:g} of the steps), above all with many "
            f"layers; more --steps; a larger --batch-size (now {config.batch_size}); text without repeated lines "
            "(--deduplicate)"
        )


class _Window(NamedTuple):
    """The losses of some consecutive steps, as two halves."""

    now: float
    """Mean of the second half."""
    fall: float
    """Mean of the first half, less `now`."""
    deviation: float
    """Standard deviation within the halves."""
    error: float
    """Standard error of `now`."""
    uncertain: float
    """Two standard errors of `fall`."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> _Window:
        halves = _losses(records).reshape(2, -1)
        before, now = halves.mean(1).tolist()
        deviation = math.sqrt(halves.var(1, ddof=1).mean())
        error = deviation / math.sqrt(halves.shape[1])
        return cls(now, before - now, deviation, error, 2 * math.sqrt(2) * error)


def _is_at_frequencies(loss: float, error: float, bounds: ContextFree) -> bool:
    return loss - 2 * error >= 0.98 * bounds.frequencies


def _bound(loss: float, error: float, bounds: ContextFree) -> str | None:
    """The context-free loss that a loss has not beaten, in words; None if it is below both."""
    if _is_at_frequencies(loss, error, bounds):
        return f"the words' frequencies alone give {bounds.frequencies:.2f}"
    if loss >= bounds.visible:
        return f"the words' frequencies, with the predicted words that no [MASK] hides, give {bounds.visible:.2f}"
    return None


def _comparable(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations on the same examples as the latest; if it is the only one on them, as the one before."""
    for number in dict.fromkeys(entry.eval_examples for entry in reversed(evaluations)):
        same = [entry for entry in evaluations if entry.eval_examples == number]
        if len(same) > 1:
            return same
    return list(evaluations[-1:])


def _losses(records: Sequence[Record]) -> npt.NDArray[np.float64]:
    return np.array([record.mlm_loss for record in records])
