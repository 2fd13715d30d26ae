"""Puts mutants to the test, each in a process of its own, several at a time."""

import os
import signal
import time
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional

from support.watching import Watch

__all__ = ('Trial', 'try_all')

#: a mutant that has not used the processor for so many seconds, and does not ask for it, waits for ever
STUCK = 20.0


class Trial:
    """A mutant that is being tried.

    :param mutant: see ``operators``
    :param copy: of the package and its tests
    :param stage: what is run: see ``child``
    :param shown: whether to let its output through
    """

    def __init__(self, mutant: Any, copy: Path, stage: str, shown: bool = False):
        import child

        self._mutant = mutant
        self._stage = stage
        self._answers, mouth = os.pipe()
        self._began = time.monotonic()
        self._pid = os.fork()
        if self._pid == 0:
            os.setpgid(0, 0)
            child.run(mutant, copy, mouth, stage, shown)
        os.close(mouth)
        self._watch = Watch(self._pid, STUCK)

    def fate(self) -> Optional[Dict[str, Any]]:
        """What became of it, once that is known."""
        killer = self._killer()
        if killer is None:
            return None
        os.close(self._answers)
        mutant = self._mutant
        return {
            'key': mutant.key, 'module': mutant.module, 'line': mutant.line, 'killer': killer, 'stage': self._stage,
            'seconds': round(time.monotonic() - self._began, 2),
        }  # fmt: skip

    def wait(self) -> Dict[str, Any]:
        """Its fate, as soon as it is known."""
        while (fate := self.fate()) is None:
            time.sleep(0.01)
        return fate

    def _killer(self) -> Optional[str]:
        """Its own words, or how it ended without any."""
        done, status = os.waitpid(self._pid, os.WNOHANG)
        if done:
            words = os.read(self._answers, 1 << 16).decode()
            if os.WIFSIGNALED(status):
                name = signal.Signals(os.WTERMSIG(status)).name
                return 'endless loop' if name == 'SIGPROF' else f'died of {name}'
            return words or 'died'
        if self._watch.stuck():
            os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            return 'stuck'
        return None


def try_all(mutants: Iterable[Any], copy: Path, stage: str, jobs: int) -> Iterator[Dict[str, Any]]:
    """Try mutants, so many at a time, and yield their fates as they become known."""
    waiting = iter(mutants)
    running: List[Trial] = []
    while True:
        while len(running) < jobs and (mutant := next(waiting, None)) is not None:
            running.append(Trial(mutant, copy, stage))
        if not running:
            return
        going_on = []
        for trial in running:
            if (fate := trial.fate()) is None:
                going_on.append(trial)
            else:
                yield fate
        if len(going_on) == len(running):
            time.sleep(0.01)
        running = going_on
