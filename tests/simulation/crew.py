"""Threads for the strands of a simulation, used for one run after the other: starting one costs as much as a run."""

import sys
import threading
from _thread import allocate_lock
from typing import Any, Callable, List, Optional

__all__ = ('Hand', 'dismiss', 'hire')

_free: List['Hand'] = []


def hire() -> 'Hand':
    """A thread that is free. It does its job when its baton is released."""
    return _free.pop() if _free else Hand()


def dismiss() -> None:
    """End the threads that are free."""
    while _free:
        hand = _free.pop()
        hand.baton.release()
        hand.thread.join()


class Hand:
    """One thread."""

    def __init__(self) -> None:
        self.baton = allocate_lock()
        self.baton.acquire()
        self.job: Optional[Callable[[], Any]] = None
        #: traces the job's frames, if it is not None
        self.tracer: Any = None
        self.thread = threading.Thread(target=self._work, name='simulated', daemon=True)
        self.thread.start()
        self.ident = self.thread.ident or 0

    def leave(self) -> None:
        """The job is done, but for the passing of the baton to somebody else."""
        if self.tracer is not None:
            sys.settrace(None)
        self.job = None
        _free.append(self)

    def _work(self) -> None:
        while True:
            self.baton.acquire()
            job = self.job
            if job is None:
                return
            if self.tracer is not None:
                sys.settrace(self.tracer)
            job()
            del job
