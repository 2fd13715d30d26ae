"""What was asked, answered, failed and found during a run, and what must not have happened."""

import collections
import threading
import time
import traceback
from typing import Callable, Counter, Dict, Iterable, List

__all__ = ('BACK_WITHIN', 'Ledger')

#: seconds within which service has to be back after the server's return
BACK_WITHIN = 1.0
#: seconds that a user waits for a connection, or for an answer, at the least; and how many times the seconds that a
#: client without a pool takes: who gives up before it could have connected is never served
PATIENCE_OF_USERS, PATIENT_TIMES = 0.5, 4
#: seconds until service that does not come back is given up
GIVE_UP = 20.0


class Ledger:
    """Kept by all users of all pools together, from any thread. Each kind of pool has a name."""

    def __init__(self) -> None:
        #: broken promises, in words
        self.violations: List[str] = []
        self.requests: Counter[str] = collections.Counter()
        self.answers: Counter[str] = collections.Counter()
        #: by kind and class of error
        self.failures: Counter[str] = collections.Counter()
        #: seconds until service was back, by kind: the longest
        self.longest_recovery: Dict[str, float] = {}
        self.recoveries = 0
        #: seconds that users wait, on a machine as busy as it is just now
        self.patience = PATIENCE_OF_USERS
        #: of these, how many took longer than they should on a machine that kept everybody waiting
        self.excused = 0
        #: seconds that clients without a pool took for a request meanwhile: the most
        self.longest_control = 0.0
        self._lock = threading.Lock()
        #: since when kinds are expected to be back, and when they were
        self._outages: Dict[str, float] = {}
        self._returns: Dict[str, float] = {}
        self._forbidden: Dict[str, float] = {}
        self._refusals: Dict[str, List[BaseException]] = {}

    def violate(self, text: str) -> None:
        with self._lock:
            self.violations.append(text)

    def asked(self, kind: str) -> None:
        with self._lock:
            self.requests[kind] += 1

    def answered(self, kind: str, began: float, question: object, answer: object) -> None:
        """Somebody has got an answer: compare it with the question.

        :param began: when the user began to acquire a connection
        """
        now = time.monotonic()
        with self._lock:
            self.answers[kind] += 1
            if answer != question:
                self.violations.append(f'{kind}: cross-talk: asked {question!r}, was answered {answer!r}')
            if began > self._forbidden.get(kind, began):
                self.violations.append(f'{kind}: was served by a server that is not to be trusted')
            since = self._outages.get(kind)
            if since is not None and now >= since:
                del self._outages[kind]
                self._returns[kind] = now - since

    def failed(self, kind: str, began: float, exc: BaseException, expected: bool) -> None:
        """A request has failed.

        :param expected: whether this error is one that a fault, or the user itself, may cause
        """
        with self._lock:
            if began > self._forbidden.get(kind, began):
                self._refusals[kind].append(exc)
            self.failures[f'{kind}: {type(exc).__name__}'] += 1
            if not expected:
                where = ''.join(traceback.format_tb(exc.__traceback__, limit=-4))
                self.violations.append(f'{kind}: unexpected {type(exc).__name__}: {exc}\n{where}')

    def await_return(self, kinds: Iterable[str], ask: Callable[[], object]) -> None:
        """Wait until each kind of pool is answered after its server's return; take down how long that took.

        The server is back when it answers a client without a pool. Such a client goes on asking meanwhile: what it
        takes for a request on a busy machine is granted to the users of the pools, too.

        :param ask: asks the servers without a pool, and returns when they have answered
        """
        ask()
        began = time.monotonic()
        with self._lock:
            self._outages = dict.fromkeys(kinds, began)
            self._returns = {}
        slowest = 0.0
        while self._outages and time.monotonic() - began < GIVE_UP:
            before = time.monotonic()
            ask()
            slowest = max(slowest, time.monotonic() - before)
            self.patience = max(PATIENCE_OF_USERS, PATIENT_TIMES * slowest)
        with self._lock:
            self.longest_control = max(self.longest_control, slowest)
            for kind, seconds in self._returns.items():
                self._note_recovery(kind, seconds, BACK_WITHIN + slowest)
            for kind in self._outages:
                self.violations.append(f'{kind}: no service for {GIVE_UP} s after the server was back')
            self._outages = {}

    def _note_recovery(self, kind: str, seconds: float, admitted: float) -> None:
        self.recoveries += 1
        self.longest_recovery[kind] = max(seconds, self.longest_recovery.get(kind, 0.0))
        self.excused += BACK_WITHIN < seconds <= admitted
        if seconds > admitted:
            self.violations.append(f'{kind}: service was back {seconds:.2f} s after the server, not {admitted:.2f} s')

    def forbid(self, kinds: Iterable[str]) -> None:
        """From now on nobody who asks may be answered, until :meth:`allow`."""
        with self._lock:
            self._forbidden = dict.fromkeys(kinds, time.monotonic())
            self._refusals = {kind: [] for kind in self._forbidden}

    def refused(self) -> Dict[str, List[BaseException]]:
        """With what those failed, by kind, who have asked since :meth:`forbid`."""
        with self._lock:
            return {kind: list(errors) for kind, errors in self._refusals.items()}

    def allow(self) -> None:
        with self._lock:
            self._forbidden = {}
