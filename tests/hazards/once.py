"""A plugin of pytest: a test that has failed with one parameter is not run with the others."""

from typing import Any, Set

import pytest

_failed: Set[str] = set()


def pytest_runtest_setup(item: Any) -> None:
    if item.originalname in _failed:
        pytest.skip('it has failed already')


def pytest_runtest_logreport(report: Any) -> None:
    if report.failed:
        _failed.add(report.nodeid.rpartition('::')[2].partition('[')[0])
