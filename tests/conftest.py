"""What holds for all tests: the header tells what is tested, and an interpreter without the GIL stays without it.
And what it takes long to make, once for all.
"""

import contextlib
import gc
import pathlib
import shutil
import signal
import sys
import sysconfig
import tempfile
from typing import Iterator, List

import pytest
from generic_connection_pool import core_implementation
from support.certificates import Certificates
from support.postgres import PostgresServer, postgres_server


def pytest_configure() -> None:
    # a shell has what it starts in the background ignore Ctrl-C, and so would all tests that send it
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    # what stays to the end of the session need not be walked through by each of the thousands of garbage collections that
    # tests ask for
    gc.collect()
    gc.freeze()


def has_brought_the_lock_back() -> bool:
    """Whether something that was imported has, in a free-threaded interpreter, enabled the global interpreter lock."""
    return bool(sysconfig.get_config_var('Py_GIL_DISABLED')) and sys._is_gil_enabled()


def pytest_report_header() -> List[str]:
    free_threaded = sysconfig.get_config_var('Py_GIL_DISABLED')
    return [f'core: {core_implementation}{", free-threaded" if free_threaded else ""}']


def pytest_sessionfinish(session: pytest.Session) -> None:
    if has_brought_the_lock_back():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if has_brought_the_lock_back():
        terminalreporter.section('the global interpreter lock is back', red=True)
        terminalreporter.line('so this run says nothing of a free-threaded interpreter')


@pytest.fixture(scope='session')
def certificates() -> Certificates:
    pytest.importorskip('trustme', exc_type=ImportError)
    return Certificates()


@pytest.fixture(scope='session')
def postgres() -> Iterator[PostgresServer]:
    """A server with no sessions of anybody. A test may restart it."""
    pytest.importorskip('psycopg2', exc_type=ImportError)
    with contextlib.ExitStack() as stack:
        parent = pathlib.Path(tempfile.mkdtemp(prefix='gcp-postgres-'))
        stack.callback(shutil.rmtree, parent)
        try:
            server = stack.enter_context(postgres_server(parent / 'data'))
        except ImportError as exc:
            pytest.skip(f'no PostgreSQL server to be had: {exc}')
        yield server
