"""The check of the core's invariants is itself checked: whatever is broken, it says what. (That of the pure core, whose
state can be got at; both are run after every step of the other tests.)
"""

from typing import Any, Callable

import pytest
from support.core_desk import Desk
from support.core_twins import PYTHON
from generic_connection_pool._pycore.record import DISPOSING, IDLE_CORE, IDLE_EXTRA, LENT, RETURNING
from generic_connection_pool._pycore.waiters import NOTHING, SLOT


class Scene:
    """A core in some state, and its parts."""

    def __init__(self, **limits: Any):
        self.desk = Desk(PYTHON, **limits)
        self.core = self.desk.core

    def endpoint(self, key: str) -> Any:
        return self.core._find(key)

    def entries(self) -> Any:
        return self.core._heap._entries


def quiet() -> Scene:
    """An endpoint with three idle connections, one with two acquired ones and one with an idle one."""
    scene = Scene(max_size=4, min_idle=1)
    for key, count in (('a', 3), ('c', 1)):
        scene.desk.idle(key, count)
    for _ in range(2):
        scene.desk.user('b')
    return scene


def queue() -> Scene:
    """Three wait at an endpoint that has reached its own limit."""
    scene = Scene(max_size=1)
    scene.desk.user('a')
    for _ in range(3):
        scene.desk.request('a')
    return scene


def needy() -> Scene:
    """The total limit alone blocks two endpoints, and nothing is idle."""
    scene = Scene(max_size=2, total_max_size=2)
    for _ in range(2):
        scene.desk.user('a')
    for key in 'bc':
        scene.desk.request(key)
    return scene


def covered() -> Scene:
    """The total limit blocks an endpoint, and one who waits has a connection of another to dispose of."""
    scene = Scene(max_size=2, total_max_size=1)
    scene.desk.idle('a')
    scene.desk.request('b')
    return scene


def half_covered() -> Scene:
    """Of two who wait at an endpoint that the total limit blocks, one has a victim; nothing else is idle."""
    scene = Scene(max_size=2, total_max_size=2)
    scene.desk.idle('a')
    scene.desk.user('c')
    for _ in range(2):
        scene.desk.request('b')
    return scene


def full_but_replacing() -> Scene:
    """An endpoint at its own limit and at the total one; one who waits there is to dispose of an expired connection."""
    scene = Scene(max_size=2, total_max_size=2, min_idle=0, idle_timeout=5.0)
    scene.desk.idle('a', 2)
    scene.desk.now = 10.0
    for _ in range(2):
        scene.desk.request('a')
    return scene


def evicting_for_nobody() -> Scene:
    """Two evictions are under way for an endpoint, but those who asked for them have given up, and one has come since."""
    scene = Scene(max_size=2, total_max_size=2)
    scene.desk.idle('a', 2)
    for client in [scene.desk.request('b') for _ in range(2)]:
        assert client.victim is not None and client.withdraw()
    scene.desk.request('b')
    return scene


def closed() -> Scene:
    scene = Scene()
    scene.desk.user('a')
    scene.core.close()
    return scene


SCENES = (quiet, queue, needy, covered, half_covered, full_but_replacing, evicting_for_nobody, closed)


@pytest.mark.parametrize('make', SCENES, ids=lambda make: make.__name__)
def test_nothing_is_said_of_a_core_that_is_all_right(make: Callable[[], Scene]) -> None:
    make().desk.check()


def test_nothing_is_said_of_a_connection_whose_release_has_begun() -> None:
    scene = Scene()
    user = scene.desk.user('a')
    assert user.begin_release()
    assert user.record.state == RETURNING
    scene.desk.check()


def test_nothing_is_said_of_the_deadline_of_an_entry_that_is_earlier_than_the_truth() -> None:
    scene = quiet()
    scene.entries()[0][2].deadline += 1.0
    scene.desk.check()


def test_nothing_is_said_of_entries_that_tie() -> None:
    scene = quiet()
    record = scene.entries()[0][2]
    for index, entry in enumerate(scene.entries()):
        scene.entries()[index] = (-1.0, 0, entry[2])
    assert record.heap_index == 0
    scene.desk.check()



def reverse(scene: Scene) -> None:
    """The heap turned round, each record knowing its place."""
    scene.entries().reverse()
    for index, entry in enumerate(scene.entries()):
        entry[2].heap_index = index


def swap_last(scene: Scene) -> None:
    """The last entry is made the earliest of all but that of its parent, which is at the top."""
    deadline, sequence, record = scene.entries()[-1]
    scene.entries()[-1] = (scene.entries()[0][0] - 1.0, sequence, record)


def tie_wrongly(scene: Scene) -> None:
    """Two entries of one deadline, the later one of which is before the other."""
    first, second = scene.entries()[0], scene.entries()[1]
    scene.entries()[0] = (second[0], second[1] + 1, first[2])
    first[2].deadline, first[2].sequence = second[0], second[1] + 1


def forget(scene: Scene) -> None:
    """An idle connection without an entry."""
    record = scene.entries().pop()[2]
    record.heap_index = -1


def too_late(scene: Scene, deadline: float, sequence: int) -> None:
    """The truth is earlier than an entry."""
    record = scene.entries()[-1][2]
    record.deadline -= deadline
    record.sequence -= sequence


def as_if(key: str, **values: Any) -> Callable[[Scene], None]:
    """Set attributes of an endpoint."""

    def change(scene: Scene) -> None:
        endpoint = scene.endpoint(key)
        for name, value in values.items():
            setattr(endpoint, name, value)

    return change


def first_ticket(key: str, **values: Any) -> Callable[[Scene], None]:
    """Set attributes of the first who waits at an endpoint."""

    def change(scene: Scene) -> None:
        for name, value in values.items():
            setattr(scene.endpoint(key).waiters.head, name, value)

    return change


def state_of(listed: str, state: int) -> Callable[[Scene], None]:
    """Set the state of the first record of a list."""

    def change(scene: Scene) -> None:
        lists = {
            'core': scene.endpoint('a').idle.core,
            'extra': scene.endpoint('a').idle.extra,
            'lent': scene.endpoint('b').lent,
        }
        lists[listed].head.state = state

    return change


def stranger(scene: Scene) -> None:
    scene.endpoint('a').idle.core.head.endpoint = scene.endpoint('b')


def miscount(name: str, by: int) -> Callable[[Scene], None]:
    """A list counts wrongly, and everything that is made of its count with it."""

    def change(scene: Scene) -> None:
        endpoint = scene.endpoint('b' if name == 'lent' else 'a')
        records = endpoint.lent if name == 'lent' else getattr(endpoint.idle, name)
        records.count += by
        scene.core.total += by
        if name == 'lent':
            scene.core._lent.count += by

    return change


def total(by: int) -> Callable[[Scene], None]:
    return lambda scene: setattr(scene.core, 'total', scene.core.total + by)


def lent(by: int) -> Callable[[Scene], None]:
    return lambda scene: setattr(scene.core._lent, 'count', scene.core._lent.count + by)


def limit(name: str, by: int) -> Callable[[Scene], None]:
    return lambda scene: setattr(scene.core, name, getattr(scene.core, name) + by)


def into_ring(name: str, key: str) -> Callable[[Scene], None]:
    """Move an endpoint to a ring, from the one that it is in."""

    def change(scene: Scene) -> None:
        endpoint = scene.endpoint(key)
        if endpoint.ring is not None:
            endpoint.ring.remove(endpoint)
        if name:
            getattr(scene.core, name).append(endpoint)

    return change


def unlink(scene: Scene) -> None:
    """The second member of the ring cannot be reached."""
    scene.core._needy.head.ring_next = None


def intruder(scene: Scene) -> None:
    """An endpoint is in a ring that it knows nothing of."""
    ring = scene.core._covered
    ring.append(scene.endpoint('a'))
    scene.endpoint('a').ring = None


def removed_member(scene: Scene) -> None:
    """A removed endpoint is in a ring."""
    endpoint = scene.endpoint('a').__class__('z', 0)
    endpoint.removed = True
    scene.core._needy.append(endpoint)


def idle_while_blocked(scene: Scene) -> None:
    """Something is idle although endpoints wait for the total limit."""
    record = scene.endpoint('a').lent.head
    scene.core._lent.remove(record)
    scene.endpoint('a').lent.remove(record)
    record.deadline = 10.0**9
    scene.endpoint('a').idle.push(record, False)
    scene.core._heap.arm(record)


def unlisted_member(scene: Scene) -> None:
    """An endpoint that the table does not know is in a ring."""
    scene.core._needy.append(scene.endpoint('a').__class__('z', 0))


def forgotten_record(scene: Scene) -> None:
    scene.core.records.pop()


def records_of_nothing(scene: Scene) -> None:
    """There are more records than connections."""
    record = next(iter(scene.core.records))
    while len(scene.core.records) <= scene.core.total:
        scene.core.records.add(record.__class__(object(), 'a', 0.0, 1.0))


def unused(scene: Scene) -> None:
    """An endpoint of which nothing is left."""
    endpoint = scene.endpoint('a').__class__('z', hash('z'))
    assert scene.core._endpoints.insert(endpoint, scene.core._endpoints.bucket(hash('z')))


def lose_member(scene: Scene) -> None:
    """Who waits first cannot be reached any more."""
    scene.endpoint('a').waiters.head = scene.endpoint('a').waiters.head.next


def victim_off_duty(scene: Scene) -> None:
    ticket = scene.endpoint('b').waiters.head
    ticket.on_duty = False
    scene.endpoint('b').waiters.off_duty = ticket


BROKEN = [
    ('quiet', total(1), 'the endpoints have'),
    ('quiet', total(-1), 'the endpoints have'),
    ('quiet', limit('total_max_size', -95), 'exceeds'),
    ('quiet', lent(1), 'in the table of lent ones'),
    ('quiet', lent(-1), 'in the table of lent ones'),
    ('quiet', as_if('a', removed=True), 'though removed'),
    ('quiet', unused, 'nothing is left of it'),
    ('quiet', limit('max_size', -2), 'has 3 of 2'),
    ('queue', as_if('a', evicting=-1), 'negative count'),
    ('quiet', as_if('a', own_evicting=-1), 'negative count'),
    ('quiet', miscount('core', 1), 'says it has'),
    ('quiet', miscount('core', -1), 'says it has'),
    ('quiet', miscount('extra', -1), 'says it has'),
    ('quiet', miscount('lent', 1), 'says it has'),
    ('quiet', miscount('lent', -1), 'says it has'),
    ('quiet', state_of('core', IDLE_EXTRA), 'in a wrong list'),
    ('quiet', state_of('extra', IDLE_CORE), 'in a wrong list'),
    ('quiet', state_of('extra', LENT), 'in a wrong list'),
    ('quiet', state_of('lent', IDLE_EXTRA), 'in a wrong list'),
    ('quiet', state_of('lent', DISPOSING), 'in a wrong list'),
    ('quiet', stranger, 'in a wrong list'),
    ('queue', first_ticket('a', state=NOTHING), 'does not wait'),
    ('queue', first_ticket('a', state=SLOT), 'does not wait'),
    ('queue', first_ticket('a', endpoint=None), 'does not wait'),
    ('covered', victim_off_duty, 'off duty has a victim'),
    ('queue', lose_member, 'tickets, count'),
    ('queue', lambda scene: setattr(scene.endpoint('a').waiters, 'count', 4), 'tickets, count'),
    ('queue', lambda scene: setattr(scene.endpoint('a').waiters, 'count', 2), 'tickets, count'),
    ('queue', lambda scene: setattr(scene.endpoint('a').waiters, 'off_duty', None), 'first ticket off duty'),
    ('queue', lambda scene: setattr(scene.endpoint('a').waiters, 'off_duty', scene.endpoint('a').waiters.tail),
     'first ticket off duty'),
    ('half_covered', lambda scene: setattr(scene.endpoint('b').waiters, 'off_duty', scene.endpoint('b').waiters.head),
     'first ticket off duty'),
    ('queue', lambda scene: setattr(scene.core, 'closed', True), 'though the pool is closed'),
    ('queue', limit('max_size', 1), 'though a slot is free'),
    ('needy', limit('total_max_size', 1), 'though a slot is free'),
    ('needy', into_ring('', 'b'), 'wrong ring'),
    ('needy', into_ring('_covered', 'b'), 'wrong ring'),
    ('half_covered', into_ring('_covered', 'b'), 'wrong ring'),
    ('covered', into_ring('_needy', 'b'), 'wrong ring'),
    ('covered', into_ring('', 'b'), 'wrong ring'),
    ('quiet', into_ring('_covered', 'a'), 'wrong ring'),
    ('queue', into_ring('_needy', 'a'), 'wrong ring'),
    ('queue', into_ring('_covered', 'a'), 'wrong ring'),
    ('quiet', forget, 'no entry in the heap'),
    ('quiet', reverse, 'out of order'),
    ('quiet', swap_last, 'out of order'),
    ('quiet', tie_wrongly, 'out of order'),
    ('quiet', lambda scene: setattr(scene.entries()[1][2], 'heap_index', 0), 'its entry is elsewhere'),
    ('quiet', lambda scene: setattr(scene.entries()[0][2], 'heap_index', -1), 'its entry is elsewhere'),
    ('quiet', lambda scene: setattr(scene.entries()[0][2], 'heap_index', 1), 'its entry is elsewhere'),
    ('quiet', lambda scene: too_late(scene, 1.0, 0), 'is too late'),
    ('quiet', lambda scene: too_late(scene, 0.0, 1), 'is too late'),
    ('quiet', intruder, 'by mistake'),
    ('quiet', removed_member, 'by mistake'),
    ('needy', unlink, 'cannot be reached'),
    ('needy', unlisted_member, 'cannot be reached'),
    ('quiet', forgotten_record, 'records, 4 idle and 2 lent of 6'),
    ('quiet', records_of_nothing, '7 records, 4 idle and 2 lent of 6'),
    ('needy', idle_while_blocked, 'though one is idle'),
]


@pytest.mark.parametrize('make, breakage, message', [(globals()[name], *rest) for name, *rest in BROKEN])
def test_what_is_broken_is_noticed(make: Callable[[], Scene], breakage: Callable[[Scene], None], message: str) -> None:
    scene = make()
    breakage(scene)
    with pytest.raises(AssertionError, match=message):
        scene.core.check_invariants()
