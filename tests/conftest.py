"""What holds for all tests: the header tells what is tested, and an interpreter without the GIL stays without it."""

import sys
import sysconfig
from typing import List

import pytest
from generic_connection_pool import core_implementation


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
