"""Threads for what a caller must not wait for: disposing of connections while the caller has a deadline."""

import collections
import logging
import threading
from typing import Callable, Deque, Set

from .._core import Ticket

__all__ = ('Workers',)

logger = logging.getLogger(__name__)

#: threads at the most, but for those that have stepped aside; a job beyond that waits for one of them
LARGEST_CREW = 64
#: seconds that a thread waits for another job before it ends
LINGER = 1.0


class Workers:
    """Runs jobs at once, each on a thread of its own, reusing those that have become free.

    The threads are daemons, because a job may hang for ever, and end when they have been idle for a second.

    There is no lock: a finalizer that runs within :meth:`submit` may submit a job of its own. Each change is one call of
    a deque's method, which is atomic, and whoever might have missed another's change looks again after its own.

    :param name: how the threads are named
    """

    def __init__(self, name: str):
        self._name = name
        #: jobs that no thread has begun yet
        self._jobs: Deque[Callable[[], object]] = collections.deque()
        #: where the idle threads sleep; whoever takes one out wakes its thread
        self._beds: Deque[Ticket] = collections.deque()
        #: identifiers of the threads of the crew. Each adds and removes its own, so that no interrupt of somebody who
        #: starts a thread can make the crew smaller; a few more than LARGEST_CREW may be started at the same time
        self.crew: Set[int] = set()

    def submit(self, job: Callable[[], object]) -> None:
        """Have a job run soon; where no thread can be started, here and now.

        :raises BaseException: what a job raises that is run here and now, unless it is an ordinary exception
        """
        self._jobs.append(job)
        if not self._staff():
            try:
                self._jobs.remove(job)  # not the first one, which may be somebody else's who was interrupted here
            except ValueError:  # a thread has taken it
                return
            self._run(job)

    def step_aside(self) -> None:
        """The calling thread is about to wait for what others do to the pool.

        If it is one of the crew, in a hook that a job has called, the others may depend on jobs which no thread has
        begun yet: a crew all of which waited would wait for itself. So the thread leaves the crew, and ends after its job.
        """
        me = threading.get_ident()
        if me in self.crew:
            self.crew.discard(me)
            self._look_again()

    def forget(self) -> None:
        """For a forked child: drop the jobs that no thread has begun yet. They are the parent's."""
        self._jobs.clear()

    def _staff(self) -> bool:
        """Have a thread look for jobs. Returns whether there is one to look."""
        try:
            self._beds.pop().wake()
        except IndexError:  # nobody is idle
            if len(self.crew) >= LARGEST_CREW:  # the next of them to be free will look
                return True
            try:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            except RuntimeError:  # out of threads, or the interpreter is about to exit
                return False
        return True

    def _work(self) -> None:
        me = threading.get_ident()
        self.crew.add(me)
        try:
            self._serve(me)
        finally:
            self.crew.discard(me)
            self._look_again()

    def _serve(self, me: int) -> None:
        """Run jobs until there have been none for a while, or the thread has stepped aside."""
        bed = Ticket(0)
        tired = False
        while not tired:
            while self._has_run_one():
                if me not in self.crew:
                    return
            self._beds.append(bed)
            tired = not self._jobs and not bed.wait(LINGER)
            try:
                self._beds.remove(bed)
            except ValueError:  # somebody has taken it out and counts on this thread
                tired = False

    def _look_again(self) -> None:
        """The calling thread is no longer one of the crew: somebody may have relied on it with a job."""
        while self._jobs and not self._staff():
            self._has_run_one()

    def _has_run_one(self) -> bool:
        """For the threads of the crew: run a job, whatever it raises. Returns whether there was one."""
        try:
            self._run(self._jobs.popleft())
        except IndexError:
            return False
        except BaseException:  # it has been logged, and the thread has other jobs
            pass
        return True

    def _run(self, job: Callable[[], object]) -> None:
        """Run a job. An interrupt is raised again: a caller's thread is not ours."""
        try:
            job()
        except BaseException as exc:
            logger.exception('a background job of a connection pool failed')
            if not isinstance(exc, Exception):
                raise
