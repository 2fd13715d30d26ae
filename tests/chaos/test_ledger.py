"""What the ledger calls a broken promise. (That the load brings such things to light, ``test_sockets.py`` shows.)"""

import ssl
import threading
import time
from typing import Any, Optional

import pytest
from chaos import ledger as module
from chaos.ledger import Ledger
from chaos.phases import check_refusals

KIND = 'pool'


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(module, 'BACK_WITHIN', 0.02)
    monkeypatch.setattr(module, 'GIVE_UP', 0.5)
    return Ledger()


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def await_return(ledger: Ledger, after: Optional[float], control: float) -> None:
    """A pool is served so many seconds after its server is back, or never; clients without one wait for ``control``."""
    asked = []

    def ask() -> None:
        asked.append(1)
        if len(asked) == 1:
            return
        if len(asked) == 2 and after is not None:
            timer = threading.Timer(after, ledger.answered, (KIND, time.monotonic(), 'a', 'a'))
            timer.daemon = True
            timer.start()
        pause(control)

    ledger.await_return([KIND], ask)


def test_an_answer_to_another_question_is_a_violation(ledger: Ledger) -> None:
    ledger.answered(KIND, time.monotonic(), 'a', 'a')
    assert ledger.violations == []
    ledger.answered(KIND, time.monotonic(), 'b', 'a')
    assert len(ledger.violations) == 1 and 'cross-talk' in ledger.violations[0]


def test_an_error_that_no_fault_explains_is_a_violation(ledger: Ledger) -> None:
    ledger.failed(KIND, 0.0, ConnectionResetError(), True)
    assert ledger.violations == []
    ledger.failed(KIND, 0.0, TypeError('what'), False)
    assert 'unexpected TypeError: what' in ledger.violations[0]
    assert ledger.failures == {'pool: ConnectionResetError': 1, 'pool: TypeError': 1}


def test_service_that_is_back_late_is_a_violation(ledger: Ledger) -> None:
    await_return(ledger, after=0.2, control=0.001)
    assert 'service was back' in ledger.violations[0]


def test_service_that_is_back_no_later_than_for_clients_without_a_pool_is_none(ledger: Ledger) -> None:
    await_return(ledger, after=0.1, control=0.3)
    assert ledger.violations == [] and ledger.excused == 1


def test_service_that_does_not_come_back_is_a_violation(ledger: Ledger) -> None:
    await_return(ledger, after=None, control=0.01)
    assert 'no service' in ledger.violations[0]


def test_who_is_served_by_the_wrong_server_is_a_violation(ledger: Ledger) -> None:
    began = time.monotonic()
    ledger.forbid([KIND])
    ledger.answered(KIND, began, 'a', 'a')
    assert ledger.violations == [], 'it had asked before'
    pause(0.001)
    ledger.answered(KIND, time.monotonic(), 'a', 'a')
    assert 'not to be trusted' in ledger.violations[0]
    ledger.allow()
    ledger.answered(KIND, time.monotonic(), 'a', 'a')
    assert len(ledger.violations) == 1


@pytest.mark.parametrize('errors, violations', [
    ([ssl.SSLCertVerificationError()], 0),
    ([ssl.SSLCertVerificationError(), TimeoutError()], 0),
    ([TimeoutError()], 1),
    ([ssl.SSLCertVerificationError(), ConnectionResetError()], 1),
])
def test_everybody_has_to_be_told_of_the_wrong_certificate(ledger: Ledger, errors: Any, violations: int) -> None:
    check_refusals(ledger, KIND, errors)
    assert len(ledger.violations) == violations
