"""A scheduler for real threads: one runs at a time, and at each step a decision says which goes on."""

import heapq
from _thread import allocate_lock, get_ident
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from generic_connection_pool.threading.pool import LAST_GRACE
from simulation.choices import Choices
from simulation.crew import Hand, hire
from simulation.seam import Clock

__all__ = ('Abort', 'Stage', 'Strand')

#: steps after which a run is said not to come to an end
MOST_STEPS = 20_000
#: how many times as likely as one unit of ``stay`` it is that a given other strand goes on
SWITCH = 4

# what has ended a strand's sleep
WOKEN = 'woken'
OVER = 'over'
INTERRUPTED = 'interrupted'


class Abort(BaseException):
    """Ends the strands of a run that has failed."""


class Strand:
    """One thread of a run."""

    def __init__(self, stage: 'Stage', name: str, baton: Any, ident: int):
        self.stage = stage
        self.name = name
        #: that of its thread
        self.ident = ident
        #: the thread runs when it can acquire this
        self.baton = baton
        self.done = False
        #: what it sleeps for, ``None`` while it can go on
        self.place: Any = None
        #: when it stops sleeping, ``None`` if only somebody else can end that
        self.until: Optional[float] = None
        #: what has ended its last sleep
        self.outcome = WOKEN
        #: tells the timers of this sleep from those of earlier ones
        self.naps = 0
        #: who waits for its end
        self.joiners: List[Strand] = []
        #: points left until a KeyboardInterrupt comes, 0 for none
        self.fuse = 0
        #: the exceptions raised in it by the simulation, since somebody emptied this
        self.injected: List[BaseException] = []
        #: those among them that must reach whoever has called the pool
        self.to_be_told: List[BaseException] = []
        #: the connections that it has
        self.holds: List[Any] = []
        #: how many others it has got in hooks
        self.borrows = 0
        #: acquires so far that could not be served without a ticket
        self.tickets = 0
        #: it is closing the pool
        self.closing = 0
        #: how deep it is in hooks
        self.depth = 0
        #: the timeout of what it asks of the pool: it must not sleep for longer
        self.timeout: Optional[float] = None

    def __repr__(self) -> str:
        return self.name


class Stage:
    """Runs strands. What a strand does between two steps is atomic for the others.

    Time stands still while anybody can go on, unless a decision says that the next timer is faster.

    :param choices: what decides
    :param clock: the time
    :param stay: how likely it is that a strand goes on at a step, in comparison with others
    :param haste: how likely it is that time goes on although somebody can run
    """

    def __init__(self, choices: Choices, clock: Clock, stay: int = 4, haste: int = 1):
        self.choices = choices
        self.clock = clock
        self.stay = stay
        self.haste = haste
        self.steps = 0
        baton = allocate_lock()
        baton.acquire()
        self.home = Strand(self, 'main', baton, get_ident())
        self.running = self.home
        #: all strands but the first, in the order of their start
        self.strands: List[Strand] = []
        #: the strands that can go on
        self.runnable: List[Strand] = [self.home]
        #: what went wrong
        self.failure: Optional[BaseException] = None
        self.aborting = False
        #: called at each step; raises if something is wrong
        self.inspect: Callable[[], None] = _nothing
        #: called when nobody can go on, before time does
        self.inspect_asleep: Callable[[], None] = _nothing
        #: called when time cannot go on either; returns whether it has changed that
        self.last_resort: Callable[[], bool] = lambda: False
        #: what else there is to be told of a deadlock
        self.tell_more: Callable[[], str] = str
        #: the inspection is under way: its own locking is no step
        self.inspecting = False
        #: what each thread traces its frames with
        self.tracer: Any = None
        #: sections under the locks of :meth:`lock` that have been completed
        self.operations = 0
        self._timers: List[Tuple[float, int, int, Strand, str]] = []
        self._timer_count = 0
        self._naps = 0
        self._sleepers: Dict[Any, Strand] = {}
        self._woken: Set[Any] = set()

    # -- strands

    def start(self, name: str, function: Callable[[], Any]) -> Strand:
        """Have a thread run a function. It cannot go on before the next step."""
        hand = hire()
        strand = Strand(self, name, hand.baton, hand.ident)
        hand.tracer = self.tracer
        hand.job = lambda: self._perform(strand, hand, function)
        self.strands.append(strand)
        self.runnable.append(strand)
        return strand

    def join(self, strand: Strand) -> None:
        """Wait for the end of a strand."""
        while not strand.done:
            strand.joiners.append(self.running)
            self.sleep(strand)

    def conclude(self) -> None:
        """End what is left of a run that has failed, and raise what went wrong."""
        if self.failure is None:
            return
        self.aborting = True
        for strand in self.strands:
            if not strand.done:
                self.running = strand
                strand.baton.release()
                self.home.baton.acquire()
        raise self.failure

    def fail(self, error: BaseException) -> None:
        """End the run."""
        if self.failure is None:
            self.failure = error
        self.aborting = True
        raise Abort

    def _perform(self, strand: Strand, hand: Hand, function: Callable[[], Any]) -> None:
        """What a thread does: the whole life of a strand."""
        try:
            if not self.aborting:
                function()
        except Abort:
            pass
        except BaseException as exc:
            if self.failure is None:
                self.failure = exc
            self.aborting = True
        strand.done = True
        if strand in self.runnable:
            self.runnable.remove(strand)
        for joiner in strand.joiners:
            self.rouse(joiner)
        target = self.home
        if not self.aborting:
            try:
                target = self._next()
            except Abort:
                pass
        self.running = target
        hand.leave()
        target.baton.release()

    # -- stepping

    def step(self, what: str) -> None:
        """A point at which another strand may go on, before the running one does ``what``."""
        if self.aborting:
            raise Abort
        me = self.running
        self.steps += 1
        if self.steps > MOST_STEPS:
            self.fail(AssertionError(f'no end: {MOST_STEPS} steps have been made'))
        self._look(self.inspect)
        others = len(self.runnable) - 1
        if others or self._timers:
            number = self.choices.below(self.stay + SWITCH * others + (self.haste if self._timers else 0))
            number -= self.stay
            if number >= SWITCH * others:
                self._fire()
            elif number >= 0:
                number //= SWITCH
                runnable = self.runnable
                self._pass_to(runnable[number if number < runnable.index(me) else number + 1])
        if self.choices.trace is not None:
            self.note(what)

    def note(self, what: str) -> None:
        """Tell the trace what the running strand does."""
        if self.choices.trace is not None:
            self.choices.trace.append(f'{self.steps:5} {self.clock.now:9.3f} {self.running.name}: {what}')

    def sleep(self, place: Any, timeout: Optional[float] = None) -> str:
        """Have the running strand sleep until it is roused, or time is over. Returns what has ended it."""
        me = self.running
        me.place = place
        me.until = None
        self._naps += 1
        me.naps = self._naps
        if timeout is not None:
            me.until = self.clock.now + timeout
            self._set_timer(me, me.until, OVER)
        self.runnable.remove(me)
        target = self._next()
        if target is not me:
            self._pass_to(target)
        return me.outcome

    def rouse(self, strand: Strand, outcome: str = WOKEN) -> None:
        """End the sleep of a strand, if it sleeps."""
        if strand.place is not None:
            strand.place = None
            strand.naps = 0
            strand.outcome = outcome
            self.runnable.append(strand)

    def burn(self, what: str) -> None:
        """A point at which a KeyboardInterrupt may come."""
        me = self.running
        if me.fuse:
            me.fuse -= 1
            if not me.fuse:
                self.interrupt(what)

    def interrupt(self, what: str) -> None:
        """Raise a KeyboardInterrupt."""
        exc = KeyboardInterrupt(f'{what}')
        self.running.injected.append(exc)
        self.running.to_be_told.append(exc)
        self.choices.tally['interrupts'] += 1
        self.note(f'is interrupted {what}')
        raise exc

    def look(self) -> None:
        """Inspect the state that the running strand has brought about, without a step."""
        if not self.aborting:
            self._look(self.inspect)

    def _look(self, inspect: Callable[[], None]) -> None:
        self.inspecting = True
        try:
            inspect()
        except Exception as exc:
            self.fail(exc)
        finally:
            self.inspecting = False

    def _next(self) -> Strand:
        """Who goes on, the running strand being asleep or at its end."""
        self._look(self.inspect)
        while True:
            others = len(self.runnable)
            if others:
                number = self.choices.below(SWITCH * others + (self.haste if self._timers else 0))
                if number < SWITCH * others:
                    return self.runnable[number // SWITCH]
            else:
                self._look(self.inspect_asleep)
                if not self._timers and not self.last_resort():
                    self._look(self._report_deadlock)
                if not self._timers:
                    continue
            self._fire()

    def _report_deadlock(self) -> None:
        everybody = (self.home, *self.strands)
        asleep = [f'{strand} ({strand.place!r})' for strand in everybody if strand.place is not None]
        raise AssertionError(f'deadlock: asleep at {self.clock.now:.3f}: {", ".join(asleep)}; {self.tell_more()}')

    def _pass_to(self, target: Strand) -> None:
        me = self.running
        self.running = target
        target.baton.release()
        me.baton.acquire()
        if self.aborting:
            raise Abort

    # -- time

    def _set_timer(self, strand: Strand, when: float, outcome: str) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, strand.naps, strand, outcome))

    def _fire(self) -> None:
        """Let the time of the next timer come."""
        while self._timers:
            when, _, nap, strand, outcome = heapq.heappop(self._timers)
            if strand.place is not None and strand.naps == nap:
                if when > self.clock.now:
                    self.clock.set(when)
                self._sleepers.pop(strand.place, None)
                self.rouse(strand, outcome)
                break
        while self._timers and self._timers[0][3].naps != self._timers[0][2]:
            heapq.heappop(self._timers)

    # -- what takes the place of the library's own means of waiting

    def park(self, parker: Any, timeout: Optional[float] = None) -> bool:
        """Parker.park()."""
        me = self.running
        # how long was reckoned before this step: whoever is late to sleep wakes up in time nevertheless
        until = None if timeout is None else self.clock.now + timeout
        self.step('waits')
        bound = me.timeout
        if bound is not None and (timeout is None or timeout > max(bound, LAST_GRACE if me.closing else 0.0) + 1e-6):
            self.fail(AssertionError(f'no bound: {me} waits for {timeout} s in what may take {me.timeout}'))
        delay = None
        if me.fuse:
            me.fuse -= 1
            if not me.fuse:
                delay = self.choices.pick((0.0, 0.1, 1.0))
                if not delay:
                    self.interrupt('before it waits')
        if parker in self._woken:
            self._woken.discard(parker)
            return True
        if until is not None and until <= self.clock.now:
            return False
        self._sleepers[parker] = me
        if delay is not None:
            self._set_alarm(delay)
        outcome = self.sleep(parker, None if until is None else max(until - self.clock.now, 0.0))
        if delay is not None:
            self.interrupt(f'while it waits ({outcome})')
        return outcome == WOKEN

    def _set_alarm(self, delay: float) -> None:
        me = self.running
        me.naps = self._naps + 1  # that of the sleep which is about to begin
        self._set_timer(me, self.clock.now + delay, INTERRUPTED)

    def unpark(self, parker: Any) -> None:
        """Parker.unpark()."""
        sleeper = self._sleepers.pop(parker, None)
        if sleeper is None:
            self._woken.add(parker)
        else:
            self.rouse(sleeper)

    def is_asleep(self, parker: Any) -> bool:
        """Whether somebody sleeps there and has not been woken."""
        return parker in self._sleepers

    def lock(self) -> 'StagedLock':
        """A lock in the place of a threading.RLock."""
        return StagedLock(self)


class StagedLock:
    """A re-entrant lock; acquiring it is a step."""

    __slots__ = ('stage', 'owner', 'depth', 'queue')

    def __init__(self, stage: Stage):
        self.stage = stage
        self.owner: Optional[Strand] = None
        self.depth = 0
        self.queue: List[Strand] = []

    def __enter__(self) -> None:
        stage = self.stage
        if stage.inspecting or self.owner is stage.running:
            self.depth += 1
            return
        stage.step('locks')
        while self.owner is not None:
            self.queue.append(stage.running)
            stage.sleep(self)
        self.owner = stage.running
        self.depth = 1

    def __exit__(self, *_: Any) -> None:
        self.depth -= 1
        if not self.depth:
            self.owner = None
            self.stage.operations += 1
            while self.queue:
                self.stage.rouse(self.queue.pop())


def _nothing() -> None:
    pass
