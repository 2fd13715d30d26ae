"""Each operation of the pure core is atomic: within another one of the same thread it is refused, and changes nothing.

(The compiled core's operations cannot be interrupted, so there is nothing to be refused.)
"""

from typing import Any, Callable, Dict, List

import pytest
from support.core_desk import Desk
from support.core_twins import PYTHON


class Scene:
    """A core that has something for each operation to work on."""

    def __init__(self) -> None:
        self.desk = Desk(PYTHON, max_size=2, total_max_size=5)
        self.core = self.desk.core
        self.user = self.desk.user('a')
        self.returning = self.desk.user('b')
        assert self.returning.begin_release()
        self.doomed = self.desk.user('c')
        self.core.discard(self.doomed.record)
        self.creator = self.desk.request('d')
        self.desk.idle('e')
        self.waiting = self.desk.request('f')  # the idle one is its victim
        self.newcomer = self.desk.client()
        self.woken: Dict[Any, None] = {}

    def endpoint(self, key: str) -> Any:
        return self.core._find(key)


OPERATIONS: Dict[str, Callable[[Scene], Any]] = {
    'Core._take': lambda s: s.core._take(s.endpoint('a'), 0.0, 0),
    'Core._request': lambda s: s.core._request(s.newcomer.ticket, s.endpoint('a'), (s.endpoint('a'),), 0.0, s.woken),
    'Core._replace': lambda s: s.core._replace(s.user.ticket, 0.0, s.woken),
    'Core._withdraw': lambda s: s.core._withdraw(s.waiting.ticket, s.woken),
    'Core._rest': lambda s: s.core._rest(s.waiting.ticket, s.woken),
    'Core.fulfil': lambda s: s.core.fulfil(s.creator.ticket, object(), 0.0),
    'Core._fail': lambda s: s.core._fail(s.creator.ticket, s.woken),
    'Core.transfer': lambda s: s.core.transfer(s.creator.ticket, s.newcomer.ticket),
    'Core.take_back': lambda s: s.core.take_back(s.user.record, s.user.loan),
    'Core._give_back': lambda s: s.core._give_back(s.returning.record, 0.0, s.woken),
    'Core.discard': lambda s: s.core.discard(s.user.record),
    'Core._disposed': lambda s: s.core._disposed(s.doomed.record, None, s.woken),
    'Core.due': lambda s: s.core.due(0.0),
    'Core.next_due': lambda s: s.core.next_due(10.0**9),
    'Core.set_alarm': lambda s: s.core.set_alarm(s.newcomer.ticket),
    'Closing._close': lambda s: s.core._close(s.woken),
    'Closing.outdate': lambda s: s.core.outdate(),
    'Closing.next_idle': lambda s: s.core.next_idle(),
    'Closing.next_lent': lambda s: s.core.next_lent(),
    'Closing._join': lambda s: s.core._join(s.newcomer.ticket, 0, s.woken),
    'Closing.leave': lambda s: s.core.leave(s.newcomer.ticket, 0),
    'Store._lent_as': lambda s: s.core._lent_as(s.user.record.conn),
    'Store._lent_by': lambda s: s.core._lent_by(s.endpoint('a'), s.user.record.conn),
    'Store._counts_of': lambda s: s.core._counts_of(s.endpoint('a')),
    'Store._holders': lambda s: s.core._holders(s.endpoint('a')),
    'Store.check_invariants': lambda s: s.core.check_invariants(),
}


def test_these_are_all() -> None:
    """What is made an operation by ``critical`` has a ``__wrapped__``."""
    found: List[str] = []
    for cls in PYTHON.get('core', 'Core').__mro__:
        found += [f'{cls.__name__}.{name}' for name, value in vars(cls).items() if hasattr(value, '__wrapped__')]
    assert sorted(found) == sorted(OPERATIONS)


@pytest.mark.parametrize('operation', OPERATIONS.values(), ids=OPERATIONS)
def test_an_operation_inside_another_one_of_its_thread_is_refused_and_changes_nothing(operation: Any) -> None:
    scene = Scene()
    before = scene.core.total, scene.core._arrivals, scene.core._sequence, scene.waiting.state, scene.creator.state
    scene.core.mutex.busy = True
    with pytest.raises(PYTHON.get('lock', 'ReentryError')):
        operation(scene)
    scene.core.mutex.busy = False
    after = scene.core.total, scene.core._arrivals, scene.core._sequence, scene.waiting.state, scene.creator.state
    assert after == before and not scene.woken and not scene.core.closed
    scene.desk.check()
