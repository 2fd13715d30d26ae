"""Threads that connect for somebody else, and may be left to themselves."""

import concurrent.futures
import threading
from typing import Any, Iterator, Optional

import pytest
from support.servers import eventually


def await_threads() -> None:
    """Wait for the threads that were left to themselves."""
    eventually(lambda: not any(thread.name == 'gcp-connect' for thread in threading.enumerate()), 'the end of threads')


@pytest.fixture
def brief_threads() -> Iterator[None]:
    """Waits for the threads that were left to themselves."""
    yield
    await_threads()


class LastMoment(concurrent.futures.Future):  # type: ignore[type-arg]
    """The outcome arrives between the end of the wait and what is done about it."""

    end: BaseException

    def result(self, timeout: Optional[float] = None) -> Any:
        outcome = super().result()
        if timeout is not None:
            raise self.end
        return outcome
