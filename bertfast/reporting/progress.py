"""A run's progress: a bar in a terminal, otherwise a log line from time to time."""

from __future__ import annotations

import logging
import time

from bertfast.log import progress_bar, shows_bars, shows_progress

logger = logging.getLogger(__name__)

_SECONDS = 30  # between lines


class Progress:
    """Shows the completed steps out of `total`, starting at `initial`.

    If standard error is not a terminal, logs a line every `log_every` steps, or with 0 every half minute and at the
    end.
    """

    def __init__(self, total: int, initial: int, log_every: int) -> None:
        self.total, self._done, self._log_every = total, initial, log_every
        self._bar = progress_bar(total=total, initial=initial, unit="step")
        self._lines = shows_progress() and not shows_bars()
        self._latest = time.monotonic()

    def advance(self, losses: str) -> None:
        """Counts a completed step; `losses` is its result as text."""
        self._done += 1
        self._bar.total = self.total
        self._bar.set_postfix_str(losses, refresh=False)
        self._bar.update()
        if self._lines and self._is_due():
            self._latest = time.monotonic()
            logger.info("step %s of %s: %s", self._done, self.total, losses)

    def _is_due(self) -> bool:
        if self._log_every:
            return self._done % self._log_every == 0
        return self._done == self.total or time.monotonic() - self._latest > _SECONDS

    def close(self) -> None:
        self._bar.close()
