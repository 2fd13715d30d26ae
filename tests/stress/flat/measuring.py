"""What is measured, and how much of it may come and go without anything having leaked."""

import ctypes
import gc
import os
import sys
import sysconfig
import threading
import time
from array import array
from typing import Any, Callable, List, NamedTuple, Optional

from generic_connection_pool._core import Record, Ticket

#: endpoints that operations have in common
ENDPOINTS = [object(), object(), object()]
#: objects that may not be referred to more and more often. (The references to ``None`` and the like are counted before
#: Python 3.12 only, and those to types only with a GIL.)
SHARED: List[Any] = [*ENDPOINTS, Record, Ticket, TimeoutError, None, True, False, 0, 1, '', ()]


#: how often each stage is measured
ROUNDS = 10
#: after this round, whatever grows up to a bound should have reached it
SETTLED = 4
#: seconds until it is taken for granted that a thread will not end
PATIENCE = 5.0
_a_moment = threading.Event()


class Measurement(NamedTuple):
    """Figures of this process; those that the platform does not tell are 0.

    :param objects: objects that the garbage collector knows
    :param references: references to the objects in ``SHARED``
    :param descriptors: open file descriptors
    :param threads: that are alive
    :param blocks: pieces of memory that Python's allocator has given out
    :param heap: bytes that ``malloc`` has given out
    :param resident: bytes of memory that the process occupies
    """

    objects: int
    references: int
    descriptors: int
    threads: int
    blocks: int
    heap: int
    resident: int


#: How much of each may be more at the end, after hundreds of thousands of operations. Objects and blocks: what the
#: interpreter keeps for itself, such as frames and emptied lists for the next use. References: those held by them.
#: Memory: ``malloc`` gives out arenas of Python's allocator and pieces of the collector's, both larger than what is in
#: them; the kernel counts pages. Without a GIL more blocks are kept, for each thread. Before Python 3.11 a function gets
#: two for a cache of its own when it has been called 1,024 times (``OPCACHE_MIN_RUNS`` in CPython's ``Python/ceval.c``).
FREE_THREADED = bool(sysconfig.get_config_var('Py_GIL_DISABLED'))
OPCODE_CACHES = sys.version_info < (3, 11)
NOISE = Measurement(
    objects=20,
    references=20,
    descriptors=0,
    threads=0,
    blocks=500 if FREE_THREADED else 200 if OPCODE_CACHES else 20,
    heap=64 * 1024,
    resident=512 * 1024,
)


class MallInfo2(ctypes.Structure):
    """The answer of glibc's ``mallinfo2()``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            'arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost',
        )
    ]  # fmt: skip


def _find_mallinfo() -> 'Optional[Callable[[], MallInfo2]]':
    try:
        function: Any = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):  # another C library, or an older one
        return None
    function.restype = MallInfo2
    result: 'Callable[[], MallInfo2]' = function
    return result


_mallinfo = _find_mallinfo()


def heap_size() -> int:
    if _mallinfo is None:
        return 0
    info = _mallinfo()
    return int(info.uordblks + info.hblkhd)


def resident_size() -> int:
    try:
        with open('/proc/self/statm') as stream:
            return int(stream.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except OSError:
        return 0


def open_descriptors() -> int:
    try:
        return len(os.listdir('/proc/self/fd'))
    except OSError:
        return 0


def measure() -> Measurement:
    """Wait for the threads of pools that are gone to end, collect the garbage, and measure.

    The interpreter's cache of attributes is emptied, too: it has a place for each address at which a name has been, and
    keeps the name. ``reprlib``, which the messages of timeouts are made with, puts its names together, so that each is
    at another address; how soon they have been at all of them is chance.
    """
    deadline = time.monotonic() + PATIENCE
    while threading.active_count() > 1 and time.monotonic() < deadline:
        _a_moment.wait(0.001)
    ctypes.pythonapi.PyType_ClearCache()
    gc.collect()
    return Measurement(
        len(gc.get_objects()),
        sum(map(sys.getrefcount, SHARED)),
        open_descriptors(),
        threading.active_count(),
        sys.getallocatedblocks(),
        heap_size(),
        resident_size(),
    )


class Series:
    """Measurements one after the other, kept without making any object that would count in the next one."""

    def __init__(self) -> None:
        self._figures = array('q', bytes(8 * len(Measurement._fields) * ROUNDS))
        self._taken = 0

    def take(self) -> None:
        for figure in measure():
            self._figures[self._taken] = figure
            self._taken += 1

    def growth(self) -> Measurement:
        """By how much each figure has grown after it should have settled."""
        settled, last = (self._figures[(number - 1) * len(Measurement._fields) :] for number in (SETTLED, ROUNDS))
        return Measurement(*(after - before for before, after in zip(settled, last)))

    def of(self, name: str) -> List[int]:
        """One figure after each round."""
        return list(self._figures[Measurement._fields.index(name) :: len(Measurement._fields)])


def too_much(grown: Measurement) -> List[str]:
    """Return the names of the figures that have grown by more than noise."""
    return [name for name, much, allowed in zip(Measurement._fields, grown, NOISE) if much > allowed]
