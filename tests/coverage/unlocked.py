"""A plugin of pytest for its own process, and those that are forked from it: coverage collects without its lock.

The lock is of use to nobody, since what is done under it is C code that keeps the GIL. But taking it is Python code,
run at each call that is traced: another thread may have the lock just when this one forks, and the child would wait
for ever.
"""

from coverage import Coverage
from coverage.collector import Collector


def pytest_configure() -> None:
    current = Coverage.current()
    assert current is not None and current._collector is not None
    #: something to be called that is not written in Python either
    nothing = int
    Collector.lock_data = Collector.unlock_data = nothing  # type: ignore[method-assign,assignment]
    for tracer in current._collector.tracers:
        tracer.lock_data = tracer.unlock_data = nothing
