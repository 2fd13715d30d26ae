"""Fixtures for the tests of the core: each runs on both implementations."""

from typing import Any

import pytest
from support.core_desk import Desk
from support.core_twins import Twin, all_twins


@pytest.fixture(params=all_twins())
def twin(request: pytest.FixtureRequest) -> Twin:
    """Both implementations of the core, one after the other."""
    chosen: Twin = request.param
    return chosen


@pytest.fixture
def desk(twin: Twin) -> Any:
    """Makes a core with given limits and a fake clock, and whoever asks it for connections: ``desk(max_size=1)``."""

    def make(**limits: Any) -> Desk:
        return Desk(twin, **limits)

    return make
