"""What the ledger calls a broken promise. (That the load brings such things to light, ``test_sockets.py`` shows.)"""

import ssl
from typing import Any

import pytest
from chaos import ledger as module
from chaos.ledger import Ledger
from chaos.phases import check_refusals

KIND = 'pool'


class Clock:
    """Stands in for the module ``time``, and goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, 'time', clock)
    return clock


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger()


def await_return(ledger: Ledger, clock: Clock, after: float, control: float) -> None:
    """A pool is served so many seconds after its server is back; a client without one takes ``control`` seconds."""
    back = clock.now + control

    def ask() -> None:
        began, clock.now = clock.now, clock.now + control
        if began < back + after <= clock.now:
            end, clock.now = clock.now, back + after
            ledger.answered(KIND, began, 'a', 'a')
            clock.now = end

    ledger.await_return([KIND], ask)


def test_an_answer_to_another_question_is_a_violation(ledger: Ledger) -> None:
    ledger.answered(KIND, 0.0, 'a', 'a')
    assert ledger.violations == []
    ledger.answered(KIND, 0.0, 'b', 'a')
    assert len(ledger.violations) == 1 and 'cross-talk' in ledger.violations[0]


def test_an_error_that_no_fault_explains_is_a_violation(ledger: Ledger) -> None:
    ledger.failed(KIND, 0.0, ConnectionResetError(), True)
    assert ledger.violations == []
    ledger.failed(KIND, 0.0, TypeError('what'), False)
    assert 'unexpected TypeError: what' in ledger.violations[0]
    assert ledger.failures == {'pool: ConnectionResetError': 1, 'pool: TypeError': 1}


def test_service_that_is_back_within_a_second_is_in_order(ledger: Ledger, clock: Clock) -> None:
    await_return(ledger, clock, after=0.95, control=0.01)
    assert ledger.violations == [] and ledger.excused == 0
    assert ledger.longest_recovery[KIND] == pytest.approx(0.95)


def test_service_that_is_back_later_is_a_violation(ledger: Ledger, clock: Clock) -> None:
    await_return(ledger, clock, after=1.05, control=0.01)
    assert 'service was back 1.05 s after' in ledger.violations[0]


def test_users_have_as_much_longer_as_clients_without_a_pool_take(ledger: Ledger, clock: Clock) -> None:
    await_return(ledger, clock, after=1.4, control=0.5)
    assert ledger.violations == [] and ledger.excused == 1
    await_return(ledger, clock, after=1.6, control=0.5)
    assert len(ledger.violations) == 1


def test_service_that_does_not_come_back_is_a_violation(ledger: Ledger, clock: Clock) -> None:
    await_return(ledger, clock, after=1e6, control=0.01)
    assert 'no service' in ledger.violations[0]


def test_who_is_served_by_the_wrong_server_is_a_violation(ledger: Ledger, clock: Clock) -> None:
    ledger.forbid([KIND])
    ledger.answered(KIND, clock.now - 1.0, 'a', 'a')
    assert ledger.violations == [], 'it had asked before'
    ledger.answered(KIND, clock.now + 1.0, 'a', 'a')
    assert 'not to be trusted' in ledger.violations[0]
    ledger.allow()
    ledger.answered(KIND, clock.now + 1.0, 'a', 'a')
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
