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
        #: one entry for each thread that may still be started
        self._vacancies: Deque[None] = collections.deque([None] * LARGEST_CREW)
        #: identifiers of the threads of the crew; each adds and removes its own, which is atomic
        self._crew: Set[int] = set()

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

        If it is one of the crew, in a hook that a job has called, the others may depend on jobs which no thread has begun
        yet: a crew all of which waited would wait for itself. So the thread leaves the crew, and ends after its job.
        """
        me = threading.get_ident()
        if me in self._crew:
            self._crew.discard(me)
            self._leave()

    def forget(self) -> None:
        """For a forked child: drop the jobs that no thread has begun yet. They are the parent's."""
        self._jobs.clear()

    def _staff(self) -> bool:
        """Have a thread look for jobs. Returns whether there is one to look."""
        try:
            self._beds.pop().wake()
        except IndexError:  # nobody is idle
            try:
                self._vacancies.pop()
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            except IndexError:  # the crew is complete: the next to be free will look
                return True
            except RuntimeError:  # out of threads, or the interpreter is about to exit
                self._vacancies.append(None)
                return False
            except BaseException:  # an interrupt; if the thread has started, the crew may be larger by one from now on
                self._vacancies.append(None)
                raise
        return True

    def _work(self) -> None:
        me = threading.get_ident()
        self._crew.add(me)
        bed = Ticket(0)
        tired = False
        while not tired:
            while self._has_run_one():
                if me not in self._crew:  # it has stepped aside
                    return
            self._beds.append(bed)
            tired = not self._jobs and not bed.wait(LINGER)
            try:
                self._beds.remove(bed)
            except ValueError:  # somebody has taken it out and counts on this thread
                tired = False
        self._crew.discard(me)
        self._leave()

    def _leave(self) -> None:
        """The calling thread is no longer one of the crew; perhaps nobody else knows of a job that has just come."""
        self._vacancies.append(None)
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
