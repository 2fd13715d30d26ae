"""The process that tries one mutant."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import resource
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, List, Optional

#: the processor time, in seconds, after which a test is taken to be in an endless loop, and a random walk
ENDLESS_TEST, ENDLESS_WALK = 4.0, 1.5

PACKAGE = 'generic_connection_pool._pycore'

#: random walks of both implementations side by side: they notice most, and at once
WALKS = 8

CORE = [
    *(f'core/test_{name}.py' for name in (
        'core_waiting', 'core_limits', 'core_releasing', 'core_closing', 'core_expiry', 'core_keys', 'waiters', 'heap',
        'deque', 'tables', 'record', 'lock', 'invariants', 'operations',
    )),
    'fuzz/test_core_misuse.py', 'core/test_twins.py',
]  # fmt: skip
THREADS = [
    *(f'pool/threading/test_{name}.py' for name in (
        'acquire', 'release', 'hook_errors', 'hooks_that_call_back', 'close', 'total_limit', 'expiry',
        'finalizers', 'slots_in_hand', 'interrupts', 'workers', 'collector', 'configuration',
        'waiting',
    )),
    'core/test_halfway.py', 'fuzz/test_managers.py', 'process/test_fork_threads.py',
    'process/test_fork_in_operations.py', 'core/test_twins.py',
]  # fmt: skip
TASKS = [
    *(f'pool/asyncio/test_{name}.py' for name in (
        'acquire_and_release', 'hook_errors', 'misuse', 'awaitables', 'event_loops', 'garbage_collection', 'close',
        'core_and_extras', 'timeouts', 'collector',
    )),
    'fuzz/test_managers.py', 'process/test_fork_asyncio.py', 'core/test_twins.py',
]  # fmt: skip
SHARED = ['pool/test_threading_shared_lock.py', 'pool/test_asyncio_shared_lock.py']
WIDE = ['core', 'pool', 'stress/test_core_threads.py']

#: the tests of one class, which notice most of what the random walks do not
QUICK = {
    'policy': ['core/test_core_waiting.py', 'core/test_core_limits.py', 'core/test_core_expiry.py'],
    'core': [
        'core/test_operations.py', 'core/test_core_waiting.py', 'core/test_core_releasing.py',
        'core/test_core_closing.py',
    ],
    'closing': ['core/test_operations.py', 'core/test_core_closing.py'],
    'waiters': ['core/test_waiters.py'],
    'heap': ['core/test_heap.py'],
    'deque': ['core/test_deque.py'],
    'endpoint': ['core/test_tables.py', 'core/test_core_keys.py'],
    'table': ['core/test_tables.py'],
    'record': ['core/test_record.py', 'core/test_deque.py', 'core/test_heap.py'],
    'store': ['core/test_operations.py', 'core/test_core_keys.py', 'core/test_core_releasing.py'],
    'lock': ['core/test_lock.py'],
    'thread_pool': ['pool/threading/test_acquire.py', 'pool/threading/test_release.py'],
    'async_pool': ['pool/asyncio/test_acquire_and_release.py'],
    'holders': ['pool/asyncio/test_timeouts.py'],
}
#: what is tried then, for each module
FIRST = {
    'core': [*CORE, 'pool/threading/test_acquire.py'],
    'lock': ['core/test_lock.py', 'pool/threading/test_finalizers.py', *SHARED[:1], *CORE],
    'thread_pool': THREADS,
    'async_pool': TASKS,
    'holders': TASKS,
    'invariants': ['core/test_invariants.py', *CORE],
}
ORDER = (
    'policy', 'core', 'closing', 'waiters', 'heap', 'deque', 'endpoint', 'table', 'record', 'store', 'lock', 'holders',
    'async_pool', 'thread_pool', 'invariants',
)  # fmt: skip
WITHOUT_WALKS = ('lock', 'holders', 'thread_pool', 'async_pool', 'invariants')


class MutantFinder(importlib.abc.MetaPathFinder):
    """Gives the mutated source for one module."""

    def __init__(self, name: str, path: Path, source: str):
        self.name = name
        self.path = path
        self.source = source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Optional[importlib.machinery.ModuleSpec]:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=_Loader(self))


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, finder: MutantFinder):
        super().__init__(finder.name, str(finder.path))
        self.finder = finder

    def get_code(self, fullname: str) -> Any:
        return compile(self.finder.source, str(self.finder.path), 'exec')


def limit_processor_time(seconds: float) -> None:
    """From now on so much and no more: the signal ends the process, whatever it is about."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


class FirstFailure:
    """A plugin of pytest that notes the first test that fails."""

    nodeid = ''

    def pytest_runtest_logstart(self) -> None:
        limit_processor_time(ENDLESS_TEST)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.nodeid:
            self.nodeid = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.nodeid:
            self.nodeid = f'collecting {report.nodeid}'


def preload(copy: Path) -> None:
    """Import what all mutants need and none of them changes."""
    os.chdir(copy)
    os.environ['GENERIC_CONNECTION_POOL_PURE'] = '1'
    sys.path[:0] = [str(copy), str(copy / 'tests')]
    sys.dont_write_bytecode = False
    import asyncio.taskgroups
    import concurrent.futures.thread
    import hypothesis.stateful
    import pytest

    assert not any(name.startswith('generic_connection_pool') for name in sys.modules)


def run(mutant: Any, copy: Path, mouth: int, stage: str, shown: bool) -> None:
    """Try a mutant and say what noticed it: never returns."""
    import operators

    code = 1
    for name in [name for name in sys.modules if name.split('.')[0] == 'support']:
        del sys.modules[name]  # that of the checkout; the copy has its own
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
        threading.stack_size(1 << 19)  # some tests start a hundred threads, whose stacks count as data
        if not shown:
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
        path = copy / 'generic_connection_pool' / '_pycore' / f'{mutant.module}.py'
        if mutant.operator:
            sys.meta_path.insert(0, MutantFinder(f'{PACKAGE}.{mutant.module}', path, operators.apply(mutant)))
        os.write(mouth, (_killer(mutant.module, stage, shown) or 'survived').encode())
        code = 0
    except BaseException as exc:  # the process ends here, whatever happens
        os.write(mouth, f'died of {exc!r}'.encode())
    finally:
        os._exit(code)


def _killer(module: str, stage: str, shown: bool) -> str:
    """What notices the mutant, at one of the stages ``walks``, ``tests`` (the likely ones) and ``wide`` (all)."""
    if stage == 'walks':
        return _walk(shown) if module not in WITHOUT_WALKS else ''
    files = [*QUICK.get(module, ()), *FIRST.get(module, CORE), *(WIDE if stage == 'wide' else ())]
    return _test(list(dict.fromkeys(files)))


def _walk(shown: bool) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        limit_processor_time(ENDLESS_TEST)  # the imports
        try:
            from core import test_lockstep

            assert test_lockstep.TWINS[1].name == 'cython'
            for seed in range(WALKS):
                random.seed(seed)
                limit_processor_time(ENDLESS_WALK)
                test_lockstep.walk(seed)
        except BaseException as exc:  # whatever it is, the mutant is dead
            if shown:
                raise
            return f'random walk ({type(exc).__name__})'
        finally:
            # so that pytest imports them in its own way
            for name in [name for name in sys.modules if name.split('.')[0] in ('core', 'support')]:
                del sys.modules[name]
    return ''


def _test(files: List[str]) -> str:
    import pytest
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        'mutation', database=None, derandomize=True, max_examples=30, deadline=None,
        phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    settings.load_profile('mutation')
    random.seed(0)
    failure = FirstFailure()
    existing = [f'tests/{name}' for name in files if os.path.exists(f'tests/{name}')]
    options = ['-x', '-q', '-p', 'no:cacheprovider', '-p', 'no:faulthandler', '-k', 'not cython']
    # the tools have been imported before the fork
    options += ['-W', 'ignore::pytest.PytestAssertRewriteWarning']
    code = pytest.main([*options, *existing], plugins=[failure])
    if code == 0:
        return ''
    return failure.nodeid or f'pytest ended with {code!s}'
