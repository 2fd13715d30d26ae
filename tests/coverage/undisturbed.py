"""A plugin of pytest for the core that is built to be traced: keeps its operations atomic in spite of that.

With a GIL the lock of the compiled core is the GIL, and costs nothing, because nothing that an operation does lets go
of it. A tracer does, if it runs Python code. That of ``inlined.py`` runs some when it meets a file for the first time
only, so all are met here, before there are other threads. Collecting garbage, which CPython up to 3.11 does when it
makes the frames that are traced, would call finalizers, and those the core, in the midst of an operation: it is left
to the tests that ask for it.

The tests that ``untraced.toml`` names do not run, nor those of the core that are given its pure-Python twin.
"""

import gc
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LEFT_OUT = Path(__file__).with_name('untraced.toml')


class Manager(BaseConnectionManager[str, str]):
    """Makes connections that are equal to others."""

    def create(self, endpoint: str, timeout: Optional[float] = None) -> str:
        return f'to {endpoint}'

    def dispose(self, endpoint: str, conn: str, timeout: Optional[float] = None) -> None:
        pass


def pytest_configure() -> None:
    gc.disable()
    pool: ConnectionPool[str, Any] = ConnectionPool(Manager(), background_collector=False)
    pool.acquire('a')
    pool.release('to ' + 'a', 'a')
    with pool.connection('a'):
        pass
    pool.close()


def left_out() -> Dict[str, str]:
    """The tests that do not run, each with the reason: a file, or one of its functions."""
    entries = tomllib.loads(LEFT_OUT.read_text(encoding='utf-8'))['left-out']
    return {test: entry['reason'] for entry in entries for test in entry['tests']}


def is_of_the_twin(item: pytest.Item) -> bool:
    """Whether a test that is run with both cores is given the pure one."""
    callspec = getattr(item, 'callspec', None)
    return callspec is not None and any(getattr(value, 'name', '') == 'python' for value in callspec.params.values())


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    reasons = left_out()
    dropped = []
    for item in items:
        name = item.nodeid.partition('[')[0]
        if not reasons.keys().isdisjoint({name, name.partition('::')[0]}) or is_of_the_twin(item):
            dropped.append(item)
    kept = set(items).difference(dropped)
    items[:] = [item for item in items if item in kept]
    config.hook.pytest_deselected(items=dropped)
