"""What the clients of a core do, in two worlds at once: one of each implementation, which must answer alike."""

from typing import Any, Callable, Dict, List, Optional, Tuple

from support.core_desk import Client, Conn
from support.core_ledger import Ledger
from support.core_twins import Twin
from support.core_world import EqualConn, Key, Limits, World

__all__ = ('NAMES', 'Actions')

#: of the endpoints
NAMES = ['a', 'b', 'c']


class Actions:
    """Two worlds, and what may happen in them. Which of many does something, a number says: ``choice``; and how he does it,
    ``how`` (the smaller, the more ordinary).

    :param twins: the implementations
    :param limits: of both cores
    :param equal: all connections compare equal
    """

    def __init__(self, twins: Tuple[Twin, Twin], limits: Limits, equal: bool):
        self.twins = twins
        self.worlds = [World(twin, limits, NAMES) for twin in twins]
        self.ledgers = [Ledger(world) for world in self.worlds]
        #: all questions are asked of this one: the other one is like it
        self.world = self.worlds[0]
        self.conn_class = EqualConn if equal else Conn
        self.conns: List[Conn] = []
        self.count = 0

    # -- parts

    def each(self, operation: Callable[[World], Any], actor: Optional[int] = None) -> Any:
        """Do the same in both worlds, and compare what came of it."""
        answers = []
        for world, ledger in zip(self.worlds, self.ledgers):
            ledger.before()
            world.desk.woken.clear()
            try:
                answer = operation(world)
            except RuntimeError as exc:
                answer = type(exc).__name__
            ledger.after(actor)
            answers.append((answer, self.look_at(world)))
        for name, value in answers[0][1].items():
            assert value == answers[1][1][name], f'{name} of {self.twins}'
        assert answers[0][0] == answers[1][0], f'answers of {self.twins}'
        return answers[0][0]

    def look_at(self, world: World) -> Dict[str, Any]:
        """Everything that a facade can see."""
        core = world.core
        return {
            'order of wake-ups': list(world.desk.woken),
            'tickets': {
                number: (client.state, world.serial(client.ticket.record), world.serial(client.victim))
                for number, client in world.clients.items()
            },
            'uses': {entry.serial: entry.record.uses for entry in world.entries.values()},
            'states': {entry.serial: entry.record.state for entry in world.entries.values()},
            'core': (core.total, core.closed, core.forced, core.drained(0), core.drained(1), core.due(world.now)),
            'endpoints': sorted(map(str, core.endpoints())),
            'sizes': [
                (core.size(key), core.idle_size(key), core.lent_size(key), core.waiting(key), core.holders(key))
                for key in map(Key, NAMES)
            ],
        }

    def new_number(self) -> int:
        self.count += 1
        return self.count

    def numbers(self, which: Callable[[Client], bool]) -> List[int]:
        return [number for number, client in self.world.clients.items() if which(client)]

    def ready_users(self) -> List[int]:
        """Clients that hold a connection and have done their other duties."""
        return self.numbers(
            lambda client: (client.record is not None or client.state == 'connection')
            and client.victim is None
            and not self.duties(client)
        )

    def duties(self, client: Client) -> List[int]:
        return [entry.serial for entry in self.world.live(place='doomed') if entry.disposer is client]

    def disposable(self) -> List[int]:
        """Connections that somebody has begun to dispose of."""
        victims = [client.victim for client in self.world.clients.values()]
        return [entry.serial for entry in self.world.live(place='doomed') if entry.record not in victims]

    # -- the usual

    def arrive(self, name: str, fast: bool, how: int) -> None:
        """Somebody wants a connection."""
        number = self.new_number()
        if fast and self.each(lambda world: world.take(number, name), number) is not None:
            return
        self.each(lambda world: world.request(number, name), number)
        if self.world.clients[number].state == 'slot':
            self.use_slot(number, how)
        self.tidy()

    def go_on(self, choice: int, how: int) -> None:
        """Somebody does what he has to do next."""
        candidates = self.numbers(lambda client: client.state != 'waiting' or client.victim is not None)
        if candidates:
            number = candidates[choice % len(candidates)]
            client = self.world.clients[number]
            if client.victim is not None and how != 5:
                self.see_to_victim(number, how)
            elif client.state == 'slot':
                self.use_slot(number, how)
            elif number in self.ready_users():
                self.end_use(number, how)
        self.tidy()

    def release(self, choice: int, how: int) -> None:
        """A user does something with his connection."""
        candidates = self.ready_users()
        if candidates:
            self.end_use(candidates[choice % len(candidates)], how)
        self.tidy()

    def dispose(self, choice: int) -> None:
        """A disposal comes to its end."""
        candidates = self.disposable()
        if candidates:
            serial = candidates[choice % len(candidates)]
            self.each(lambda world: world.dispose(serial))
        self.tidy()

    def hammer(self, name: str) -> None:
        """An endpoint is used over and over, with somebody waiting for it all the time."""
        for _ in range(40):
            users = [n for n in self.ready_users() if str(self.world.clients[n].key) == name]
            if not users:
                return
            self.arrive(name, False, 0)
            self.end_use(users[0], 0)

    def wait(self, seconds: float, collect: bool) -> None:
        for world in self.worlds:
            world.desk.now += seconds
        while collect and self.each(lambda world: world.next_due()) is not None:
            pass

    # -- the unusual

    def interfere(self, choice: int, what: str, name: str) -> None:
        if what == 'withdraw':
            candidates = self.numbers(lambda client: client.record is None)
            if candidates:
                number = candidates[choice % len(candidates)]
                self.each(lambda world: world.withdraw(number), number)
        elif what == 'find':
            self.find(name, choice)
        elif what == 'alarm':
            alarm = self.new_number() if choice % 4 else None
            self.each(lambda world: world.set_alarm(alarm))
        elif what == 'idle' and choice % 2:
            self.each(lambda world: world.next_idle())
        elif what == 'rare' and choice % 8 == 1:
            self.each(lambda world: world.outdate())
        elif what == 'rare' and choice % 8 == 0 and self.count > 12:
            self.each(lambda world: world.close_all())
        self.tidy()

    def empty(self, choice: int, what: str, excused: int) -> None:
        """Somebody wants the closed pool to be empty."""
        if not self.world.core.closed:
            return
        if what == 'idle':
            self.each(lambda world: world.next_idle())
        elif what == 'lent' and choice % 3 == 0:
            self.each(lambda world: world.all_lent())
        elif what == 'join':
            number = self.new_number()
            self.each(lambda world: world.join(number, excused), number)
        elif what == 'leave' and self.world.joined:
            joined = sorted(self.world.joined)
            leaver = joined[choice % len(joined)]
            self.each(lambda world: world.leave(leaver), leaver)
        self.tidy()

    # -- what a client does; how, a number says (the smaller, the more ordinary)

    def use_slot(self, number: int, how: int) -> None:
        if how == 5:
            self.each(lambda world: world.fail(number), number)
        elif how == 4:
            heir = self.new_number()
            self.each(lambda world: world.transfer(number, heir))
        elif how < 3:
            if how < 2 or not self.conns:
                self.conns.append(self.conn_class(len(self.conns)))
            conn = self.conns[-1] if how < 2 else self.conns[number % len(self.conns)]  # one that the pool has already
            self.each(lambda world: world.create(number, conn), number)

    def see_to_victim(self, number: int, how: int) -> None:
        serial = self.each(lambda world: world.pick_up(number), number)
        if how < 3:
            self.each(lambda world: world.dispose(serial), number)
        elif how == 3:
            self.each(lambda world: world.rest(number), number)

    def end_use(self, number: int, how: int) -> None:
        entry = self.world.entries[self.world.held(number)]
        if how == 5 and entry.place != 'returning' and self.world.clients[number].record is None:
            return self.each(lambda world: world.replace(number), number)  # type: ignore[no-any-return]
        if entry.place == 'held' or entry.forced:
            loans_ago = 1 if how == 4 else 0
            answer = self.each(lambda world: world.begin_release(number, loans_ago), number)
            assert answer == (entry.place == 'returning')
            assert not answer or not loans_ago, 'another loan was ended'
        if how != 3:
            self.each(lambda world: (world.discard if how == 2 else world.end_release)(number), number)

    def find(self, name: str, choice: int) -> None:
        if not self.conns:
            return
        conn = self.conns[choice % len(self.conns)]
        serial = self.each(lambda world: world.find(conn, name))
        lent = self.world.live(place='held')
        same = [entry.serial for entry in lent if entry.record.conn is conn and entry.key == name]
        if same:
            assert serial in same
        elif any(entry.record.conn is conn for entry in lent):
            assert serial is None, 'it is acquired from another endpoint'
        elif serial is not None:
            entry = self.world.entry(serial)
            assert entry.place == 'held' and entry.key == name and entry.record.conn == conn
        else:
            ours = any(e.record.conn is conn for e in self.world.live(name))
            assert ours or not any(e.record.conn == conn for e in lent if e.key == name), 'an equal one is acquired'

    def tidy(self) -> None:
        """Clients go away that have nothing left to do."""
        for number, client in list(self.world.clients.items()):
            idle = client.state in ('nothing', 'closed') and client.record is None and client.victim is None
            is_alarm = self.world.alarm is client
            if idle and not is_alarm and number not in self.world.joined and not self.duties(client):
                self.each(lambda world, number=number: world.forget(number))  # type: ignore[misc]

    # -- the end

    def end(self) -> None:
        """Everybody gives back what he has; nothing may be left."""
        while self.world.clients or self.world.live():
            self.each(lambda world: world.set_alarm(None))
            for number in list(self.world.joined):
                self.each(lambda world, n=number: world.leave(n), number)  # type: ignore[misc]
            for number in list(self.world.clients):
                self.unwind(number)
            for serial in self.disposable():
                self.each(lambda world, s=serial: world.dispose(s))  # type: ignore[misc]
            self.each(lambda world: world.next_idle())
            self.tidy()
        for world in self.worlds:
            world.desk.assert_empty()

    def unwind(self, number: int) -> None:
        client = self.world.clients[number]
        if client.record is None:
            self.each(lambda world: world.withdraw(number), number)
        if client.victim is not None:
            self.each(lambda world: world.pick_up(number), number)
        if client.state == 'slot':
            self.each(lambda world: world.fail(number), number)
        elif client.record is not None or client.state == 'connection':
            self.each(lambda world: world.end_release(number), number)
