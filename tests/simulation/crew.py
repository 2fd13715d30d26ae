"""Threads for the strands of a simulation, used for one run after the other: starting one costs as much as a run."""

import sys
import threading
from _thread import allocate_lock
from typing import Any, Callable, List, Optional

__all__ = ('Hand', 'hire')

_free: List['Hand'] = []


def hire() -> 'Hand':
    """A thread that is free. It does its job when its baton is released."""
    return _free.pop() if _free else Hand()


class Hand:
    """One thread."""

    def __init__(self) -> None:
        self.baton = allocate_lock()
        self.baton.acquire()
        self.job: Optional[Callable[[], Any]] = None
        #: traces the job's frames
        self.tracer: Any = None
        threading.Thread(target=self._work, name='simulated', daemon=True).start()

    def leave(self) -> None:
        """The job is done, but for the passing of the baton to somebody else."""
        sys.settrace(None)
        self.job = None
        _free.append(self)

    def _work(self) -> None:
        while True:
            self.baton.acquire()
            job = self.job
            assert job is not None
            sys.settrace(self.tracer)
            job()
            del job
