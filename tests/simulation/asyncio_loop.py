"""An event loop that is driven one callback at a time, by a clock of its own."""

import asyncio
import collections
import contextlib
import heapq
import itertools
from asyncio import _set_running_loop
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple

__all__ = ('SteppedLoop',)


#: tasks after which those that have ended are forgotten
MANY = 100


class SteppedLoop(asyncio.AbstractEventLoop):
    """Enough of an event loop for tasks, futures and timers, and no more: no selector, no thread, no real time.

    Whoever drives it says when the next callback runs and which, and when time goes on. By default callbacks run first
    in, first out, as asyncio promises. A :attr:`choose` may run them in another order. Those that one and the same
    callback has scheduled keep their order even then, so that what a single cause sets off does not come apart: the
    callbacks of one future, or the wake-ups of one operation of a pool.

    :param choose: gets a number of callbacks and returns which of them is the next, 0 being the one whose turn it is
    :param now: the time to begin with, in seconds
    """

    def __init__(self, choose: Optional[Callable[[int], int]] = None, now: float = 0.0) -> None:
        self.now = now
        self.choose = choose
        #: callbacks run so far
        self.steps = 0
        #: what was reported by the exception handler: callbacks that failed, exceptions that nobody has looked at
        self.reports: List[Dict[str, Any]] = []
        #: those that were unfinished when they were last looked through, and all since
        self.tasks: List['asyncio.Task[Any]'] = []
        self._ready: Deque[Tuple[int, asyncio.Handle]] = collections.deque()
        self._timers: List[Tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        #: tells the callbacks that one cause has scheduled from those of others
        self._cause = 0
        self._closed = False
        self._running = False

    # -- driving it

    def enter(self) -> None:
        """Make it the running loop of this thread."""
        self._running = True
        _set_running_loop(self)

    def leave(self) -> None:
        """End that."""
        self._running = False
        _set_running_loop(None)

    @property
    def idle(self) -> bool:
        """Nothing is to be run before time goes on."""
        while self._ready and self._ready[0][1].cancelled():
            self._ready.popleft()
        return not self._ready

    @property
    def next_timer(self) -> Optional[float]:
        """When the next timer is due, ``None`` if there is none."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, now: float) -> None:
        """Let time go on. The timers that are due then join the queue."""
        self.now = max(self.now, now)
        while self._timers and self._timers[0][0] <= self.now:
            handle = heapq.heappop(self._timers)[2]
            if not handle.cancelled():
                self.new_cause()
                self._ready.append((self._cause, handle))

    def step(self) -> bool:
        """Run one callback.

        :return: whether there was one
        :raises BaseException: KeyboardInterrupt and SystemExit of a callback, which stop any event loop
        """
        if self.idle:
            return False
        handle = self._pick()
        self.steps += 1
        self.new_cause()
        handle._run()
        return True

    @contextlib.contextmanager
    def ahead_of_others(self) -> Iterator[None]:
        """Within the block only what it has scheduled itself is run; the rest of that comes after all others."""
        others, self._ready = self._ready, collections.deque()
        try:
            yield
        finally:
            self._ready = others + self._ready

    def new_cause(self) -> None:
        """Whatever is scheduled from now on has nothing to do with what was before."""
        self._cause += 1

    def _pick(self) -> asyncio.Handle:
        if self.choose is None or len(self._ready) == 1:
            return self._ready.popleft()[1]
        causes = set()
        first = []  # where the first callback of each cause is
        for place, (cause, handle) in enumerate(self._ready):
            if cause not in causes and not handle.cancelled():
                causes.add(cause)
                first.append(place)
        place = first[self.choose(len(first)) if len(first) > 1 else 0]
        handle = self._ready[place][1]
        del self._ready[place]
        return handle

    # -- what tasks, futures and pools ask of a loop

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        if self._closed:
            raise RuntimeError('Event loop is closed')
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append((self._cause, handle))
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        if self._closed:
            raise RuntimeError('Event loop is closed')
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is dropped when it comes to the top."""

    def create_future(self) -> 'asyncio.Future[Any]':
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> 'asyncio.Task[Any]':
        if self._closed:
            raise RuntimeError('Event loop is closed')
        task = asyncio.Task(coro, loop=self, **options)
        if len(self.tasks) > MANY:
            self.tasks = [other for other in self.tasks if not other.done()]
        self.tasks.append(task)
        return task

    def call_exception_handler(self, context: Dict[str, Any]) -> None:
        self.reports.append(context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Close it; what is pending will never run."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def forget(self) -> None:
        """Close it, and let go of its tasks. What asyncio notes of a running loop before Python 3.12, and a pool keeps, is
        something that the garbage collector does not look into: it could not free a loop that refers to its pool.
        """
        self.close()
        self.tasks.clear()
