"""What the jobs of the demo share: the order, and the ledger of what happened."""

import contextlib
import threading
from typing import Any, Dict, Hashable, Iterator, NamedTuple, Set

#: acquires that are timed, in batches of so many
BATCHES, BATCH = 15, 100


class Order(NamedTuple):
    core: str
    runtime: str
    protocol: str
    #: how many ask at the same time, and how many questions each of them has
    users: int
    questions: int
    #: how many connections of one endpoint there may be, and how many of all
    max_size: int
    total_max_size: int
    #: where the server is, and what it takes to get in
    where: Dict[str, Any]


class WrongAnswer(Exception):
    """An answer is not the one to the question: the pool, or its user, has mixed up connections."""


class Ledger:
    """Counts connections from before they are opened until after they are closed, and the questions answered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers = self._opened = self._open = self._most_open = 0
        self._peers: Set[Hashable] = set()

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Count a connection that is opened in the ``with`` block, unless that fails."""
        with self._lock:
            self._open += 1
            self._most_open = max(self._most_open, self._open)
        try:
            yield
        except BaseException:
            self.closed()
            raise
        with self._lock:
            self._opened += 1

    def closed(self) -> None:
        """Count a connection that has been closed."""
        with self._lock:
            self._open -= 1

    def check(self, question: str, expected: Hashable, answer: Hashable, peer: Hashable = None) -> None:
        """Compare the answer to a question with the expected one.

        :param peer: which connection the server says it came through, if it says so
        """
        if answer != expected:
            raise WrongAnswer(f'to the question {question!r} the answer should be {expected!r}, but is {answer!r}')
        with self._lock:
            self._answers += 1
            if peer is not None:
                self._peers.add(peer)

    def totals(self) -> Dict[str, int]:
        with self._lock:
            return {
                'answers': self._answers,
                'opened': self._opened,
                'most_open': self._most_open,
                'left_open': self._open,
                'peers': len(self._peers),
            }
