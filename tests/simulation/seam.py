"""Puts a simulation's clock, parking places, locks and threads in the place of the real ones, for both cores."""

import contextlib
import gc
import importlib
import logging
from typing import Any, Iterator, List, Optional, Tuple

from generic_connection_pool import core_implementation

__all__ = ('Clock', 'replaced', 'silenced', 'simulated_parking', 'uncollected')

COMPILED = core_implementation == 'cython'
#: modules that know the clock by a name of their own: with the pure core, it is time.monotonic itself
CLOCK_USERS = (
    'generic_connection_pool._pycore.lock',
    'generic_connection_pool._pycore.core',
    'generic_connection_pool._pycore.thread_pool',
    'generic_connection_pool._pycore.async_pool',
    'generic_connection_pool._deadlines',
    'generic_connection_pool.threading.pool',
    'generic_connection_pool.asyncio.pool',
)


class Clock:
    """The time of a simulation, in seconds. While :meth:`in_place`, it is what the pools go by."""

    def __init__(self, now: float = 1000.0):
        self.now = now
        self._tell_core: Optional[Any] = None

    def monotonic(self) -> float:
        """What the clock says."""
        return self.now

    def set(self, now: float) -> None:
        """Move on."""
        self.now = now
        if self._tell_core is not None:
            self._tell_core(now)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Make it the clock of the core in use and of the facades."""
        if COMPILED:
            self._tell_core = importlib.import_module('_cpool.lock')._set_virtual_time
            self._tell_core(self.now)
            try:
                yield
            finally:
                self._tell_core(-1.0)
                self._tell_core = None
        else:
            with replaced(*((module, 'monotonic', self.monotonic) for module in CLOCK_USERS)):
                yield


@contextlib.contextmanager
def simulated_parking(stage: Any) -> Iterator[None]:
    """Have tickets made from now on park at ``stage.park(parker, timeout)`` until ``stage.unpark(parker)``.

    With the pure core, ``stage.lock()`` makes the lock of each pool's core, too; the compiled core has none that
    somebody could wait for.
    """
    if COMPILED:
        set_stage = importlib.import_module('_cpool.lock')._set_stage
        set_stage(stage)
        try:
            yield
        finally:
            set_stage(None)
        return
    lock = importlib.import_module('generic_connection_pool._pycore.lock')

    class StagedParker(lock.Parker):
        __slots__ = ()

        def park(self, timeout: Optional[float] = None) -> bool:
            return bool(stage.park(self, timeout))

        def unpark(self) -> None:
            stage.unpark(self)

    class StagedMutex(lock.Mutex):
        __slots__ = ()

        def __init__(self) -> None:
            super().__init__()
            self.lock = stage.lock()

    with replaced(
        ('generic_connection_pool._pycore.waiters', 'Parker', StagedParker),
        ('generic_connection_pool._pycore.policy', 'Mutex', StagedMutex),
    ):
        yield


@contextlib.contextmanager
def replaced(*places: Tuple[str, str, Any]) -> Iterator[None]:
    """Put something else under a module's name: ``(module, name, value)``."""
    before: List[Tuple[Any, str, Any]] = []
    try:
        for module_name, name, value in places:
            module = importlib.import_module(module_name)
            before.append((module, name, getattr(module, name)))
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in reversed(before):
            setattr(module, name, value)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """The garbage collector would run finalizers of earlier runs in the midst of this one: that is chance."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def silenced(logger: logging.Logger) -> Iterator[None]:
    """Disposals fail by the thousand: nobody wants to read that."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
