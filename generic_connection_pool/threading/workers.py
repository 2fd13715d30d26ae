"""Threads for what a caller must not wait for: disposing of connections while the caller has a deadline."""

import collections
import logging
import threading
from typing import Callable, Deque

__all__ = ('Workers',)

logger = logging.getLogger(__name__)

#: threads at the most; a job beyond that waits for one of them
LARGEST_CREW = 64
#: seconds that a thread waits for another job before it ends
LINGER = 1.0


class Workers:
    """Runs jobs at once, each on a thread of its own, reusing those that have become free.

    The threads are daemons, because a job may hang for ever, and end when they have been idle for a second.

    :param name: how the threads are named
    """

    def __init__(self, name: str):
        self._name = name
        #: guards the three below
        self._changed = threading.Condition(threading.Lock())
        self._jobs: Deque[Callable[[], object]] = collections.deque()
        self._idle = 0
        self._crew = 0

    def submit(self, job: Callable[[], object]) -> None:
        """Have a job run soon; where no thread can be started, here and now."""
        with self._changed:
            if self._idle < len(self._jobs) + 1 and self._crew < LARGEST_CREW:
                if not self._start():
                    return self._run(job)
            self._jobs.append(job)
            self._changed.notify()

    def _start(self) -> bool:
        self._crew += 1
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:  # out of threads, or the interpreter is about to exit
            self._crew -= 1
            return False
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._jobs, LINGER)
                self._idle -= 1
                if not self._jobs:
                    self._crew -= 1
                    return
                job = self._jobs.popleft()
            self._run(job)
            del job

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException:  # nobody waits for it, and the thread has other jobs
            logger.exception('a background job of a connection pool failed')
