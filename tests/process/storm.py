"""Interrupts at random instants of blocks that create, wait, are handed connections and give them back.

Run as a script it goes on for as long as it is told, and prints what it has seen: ``python storm.py SECONDS``.
"""

import contextlib
import ctypes
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

from generic_connection_pool import core_implementation
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool

ENDPOINTS = 'abc'


class Interrupt(BaseException):
    """Raised in other threads."""


class PlainManager(BaseConnectionManager[str, object]):
    """No hook but those that must be; nothing of its own that an interrupt could tear apart."""

    def create(self, endpoint: str, timeout: Any = None) -> object:
        return object()

    def dispose(self, endpoint: str, conn: object, timeout: Any = None) -> None:
        pass


class HookedManager(PlainManager):
    """All hooks, in Python, so that they are interrupted as well."""

    def check_aliveness(self, endpoint: str, conn: object, timeout: Any = None) -> bool:
        return True

    def on_acquire(self, endpoint: str, conn: object) -> None:
        pass

    def on_release(self, endpoint: str, conn: object) -> None:
        pass


class Storm:
    """Blocks under fire, in the calling thread, while others want the same connections."""

    def __init__(self, manager: PlainManager, rivals: int):
        self.pool: Any = ConnectionPool(manager, max_size=1, total_max_size=2)
        self.interrupts = 0
        self.rounds = 0
        self._stop = threading.Event()
        self._rivals = [threading.Thread(target=self._compete, args=(me,), daemon=True) for me in range(rivals)]
        for rival in self._rivals:
            rival.start()

    def under_fire(self) -> None:
        """What may be interrupted."""
        for endpoint in ENDPOINTS * 20:
            with self.pool.connection(endpoint, 20 if self.rounds % 2 else None):
                pass

    def run_once(self, kind: Any) -> None:
        """Run blocks until they have ended or are interrupted."""
        self.rounds += 1
        try:
            self.under_fire()
        except kind:
            self.interrupts += 1

    def check(self) -> None:
        """The books balance at this very moment."""
        core = self.pool._core
        core.check_invariants()
        if not self._rivals:  # what a worker disposes of counts until it has done so
            assert not any(core.lent_size(endpoint) or core.waiting(endpoint) for endpoint in ENDPOINTS)

    def finish(self) -> None:
        """Nothing is left to anybody; everything can be had."""
        self._stop.set()
        for rival in self._rivals:
            rival.join(20)
            assert not rival.is_alive(), 'a rival waits for what was lost'
        deadline = time.monotonic() + 20
        core = self.pool._core
        while core.total != sum(core.idle_size(endpoint) for endpoint in ENDPOINTS):  # disposals by workers
            assert time.monotonic() < deadline, f'{core.total} slots are in use'
        for endpoint in ENDPOINTS:
            assert core.waiting(endpoint) == core.lent_size(endpoint) == 0
            self.pool.release(self.pool.acquire(endpoint, timeout=20), endpoint)
        core.check_invariants()
        self.pool.close()
        assert self.pool.get_size() == 0

    def _compete(self, me: int) -> None:
        place = me
        while not self._stop.is_set():
            place += 1
            with self.pool.connection(ENDPOINTS[place % 3], 20 if place % 2 else None):
                pass


@contextlib.contextmanager
def signals(interval: float) -> Iterator[None]:
    """KeyboardInterrupt in the main thread, again and again, wherever it is below :meth:`Storm.under_fire`."""

    def handler(_: int, frame: Any) -> None:
        while frame is not None:
            if frame.f_code is Storm.under_fire.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, interval, interval)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def by_signals(manager: PlainManager, rivals: int, interrupts: int, seconds: float) -> Storm:
    """Interrupt the main thread so many times, or for so long."""
    storm = Storm(manager, rivals)
    deadline = time.monotonic() + seconds
    with signals(0.0003):
        while storm.interrupts < interrupts and time.monotonic() < deadline:
            storm.run_once(KeyboardInterrupt)
            storm.check()
    storm.finish()
    return storm


class Births:
    """Knows whether threads are being born, so that none is interrupted in the place of the thread that starts it.

    Until a new thread runs, CPython before 3.12 knows it by the identifier of the thread that has started it, and
    ``PyThreadState_SetAsyncExc`` takes the first one of that identifier. The new thread ends there and then, and
    whoever has called ``Thread.start()`` waits for ever to be told that it runs.
    """

    #: seconds after which a thread that does not run was never started: an interrupt has come first
    PATIENCE = 1.0

    def __init__(self) -> None:
        #: makes it one step to look whether threads are being born, and to interrupt the one that may have started them
        self._lock = threading.Lock()
        #: when those were started that do not run yet
        self._unborn: Dict[object, float] = {}
        self._start: Any = getattr(threading, '_start_new_thread', None)  # which 3.13 has no more

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Have all threads that are started meanwhile noticed."""
        if sys.version_info >= (3, 12):
            yield
            return
        setattr(threading, '_start_new_thread', self._start_noticed)
        try:
            yield
        finally:
            setattr(threading, '_start_new_thread', self._start)

    def interrupt(self, interrupt: Callable[[], object]) -> None:
        """Interrupt, unless a thread is being born."""
        with self._lock:
            if all(time.monotonic() - started > self.PATIENCE for started in list(self._unborn.values())):
                interrupt()

    def _start_noticed(self, function: Callable[..., object], args: Any) -> Any:
        birth = object()
        with self._lock:
            self._unborn[birth] = time.monotonic()
        return self._start(self._run, (birth, function, args))

    def _run(self, birth: object, function: Callable[..., object], args: Any) -> None:
        del self._unborn[birth]
        function(*args)


def by_other_threads(manager: PlainManager, rivals: int, interrupts: int, seconds: float) -> Storm:
    """Have ``PyThreadState_SetAsyncExc`` interrupt a worker thread."""
    storm = Storm(manager, rivals)
    deadline = time.monotonic() + seconds
    over = threading.Event()
    errors: List[BaseException] = []

    def work() -> None:
        while not over.is_set():
            try:
                storm.run_once(Interrupt)
                storm.check()
            except Interrupt:  # between two rounds
                pass
            except BaseException as exc:
                errors.append(exc)
                return

    def run() -> None:
        while not over.is_set():
            with contextlib.suppress(Interrupt):
                work()
                return

    worker = threading.Thread(target=run, daemon=True)
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)
    pause = threading.Event()
    births = Births()
    with births.watched():
        worker.start()
        while storm.interrupts < interrupts and time.monotonic() < deadline and not errors:
            births.interrupt(lambda: raise_in(worker.ident or 0, Interrupt))
            pause.wait(0.0003)
    over.set()
    worker.join(20)
    assert not worker.is_alive() and not errors, errors
    storm.finish()
    return storm


SOURCES: Dict[str, Callable[[PlainManager, int, int, float], Storm]] = {
    'signals': by_signals,
    'other threads': by_other_threads,
}


def main(seconds: float) -> None:
    reports: Dict[str, int] = {}

    def note(report: Any) -> None:
        where = f'{report.exc_type.__name__} in {report.object!r:.60}'
        reports[where] = reports.get(where, 0) + 1

    sys.unraisablehook = note
    total = 0
    for name, source in SOURCES.items():
        for manager in (PlainManager(), HookedManager()):
            for rivals in (0, 2):
                storm = source(manager, rivals, 10**9, seconds / 8)
                total += storm.interrupts
                print(f'{name}, {type(manager).__name__}, {rivals} rivals: {storm.interrupts} interrupts', flush=True)
    print(f'{total} interrupts on the core in {core_implementation}, Python {sys.version.split()[0]}; told: {reports}')


if __name__ == '__main__':
    main(float(sys.argv[1]))
