"""What a core promises, stated without regard to how it keeps it, and checked after each operation on a world."""

from typing import Dict, List, Optional, Tuple

from support.core_desk import Client
from support.core_world import Entry, Key, World

__all__ = ('Ledger',)


class Ledger:
    """Keeps the world's record of who has what, and checks each step against the promises of the core.

    :param world: the world
    """

    def __init__(self, world: World):
        self.world = world
        #: hand-offs to others while an endpoint was blocked by nothing but the total limit
        self.bypassed: Dict[str, int] = {}
        self.bypass_limit = max(16, world.limits.total_max_size)
        self.before()

    def before(self) -> None:
        """Remember what an operation is about to change."""
        clients = self.world.clients
        self.states = {number: client.state for number, client in clients.items()}
        self.victims = {number: client.victim for number, client in clients.items()}
        self.wakes = {number: client.wakes for number, client in clients.items()}
        self.blocked = {name for name in self.world.names if self._is_blocked(name)}
        self.was_closed = self.world.core.closed
        self.expected = {name: self._first_idle(name) for name in self.world.names}
        self.nearest = sorted(self.world.live(place='idle'), key=lambda entry: (entry.deadline, entry.released))

    def after(self, actor: Optional[int] = None) -> None:
        """Take down what the operation has changed, and check it.

        :param actor: the client whose operation it was
        """
        granted = self._take_down_grants()
        self._take_down_victims()
        self._take_down_idle()
        self._check_wakes(actor)
        self._check_counts()
        self._check_order(granted)
        self._check_bypass(granted)
        if self.world.core.closed:
            assert not self.world.in_state('waiting'), 'somebody waits for a closed pool'
            assert not (granted and self.was_closed), f'{granted} were served by a closed pool'
        else:
            for name in self.world.names:
                self._check_nobody_waits_in_vain(name)
        self._check_sleepers()
        self.world.desk.check()

    # -- what has changed

    def _take_down_grants(self) -> List[Client]:
        """Those who have got a connection or a slot just now."""
        granted = []
        for number, client in self.world.clients.items():
            old = self.states.get(number, 'nothing')
            entry = self.world.entries.get(self.world.held(number))
            new_loan = entry is not None and entry.holder != number and not entry.forced
            if new_loan and entry is not None:
                self._take_down_loan(number, client, entry)
            if old != 'slot' and (new_loan or client.state == 'slot') and not client.is_heir:
                granted.append(client)
        return granted

    def _take_down_loan(self, number: int, client: Client, entry: Entry) -> None:
        assert entry.holder is None, f'{entry} is held by {entry.holder} and {number}'
        assert entry.key == str(client.key), f'{client} was given {entry}'
        if entry.place == 'idle':
            assert entry.deadline > self.world.now, f'{entry} was handed out though its time has come'
            assert entry is self.expected[entry.key], f'{entry} was taken before {self.expected[entry.key]}'
        else:
            assert entry.place in ('held', 'returned'), f'{client} was given {entry}'
            if entry.place == 'returned':
                assert entry.expires > self.world.now, f'{entry} was handed on though its time has come'
        entry.place = 'held'
        entry.holder = number

    def _take_down_victims(self) -> None:
        sacrificed = []
        for number, client in self.world.clients.items():
            old, new = self.victims.get(number), client.victim
            if new is None or new is old:
                continue
            assert old is None, f'{client} has got another victim instead of {self.world.entries[old]}'
            entry = self.world.entries[new]
            assert entry.place in ('idle', 'returned', 'held'), f'{client} is to dispose of {entry}'
            old_place = entry.place
            if old_place == 'held':
                assert entry.holder == number, f'{client} has got {entry} of somebody else for a victim'
            if old_place == 'idle':
                sacrificed.append((client, entry))
            entry.place, entry.holder = 'doomed', None
            entry.sacrificed_for = name = str(client.key)
            enough = len(self.world.in_state('waiting', name))
            assert old_place == 'held' or len(self.world.sacrifices(name)) <= enough, f'{entry} had not to go for {name}'
        self._check_choice(sacrificed)

    def _check_choice(self, sacrificed: List[Tuple[Client, Entry]]) -> None:
        """It is the connections nearest their deadlines that go, but for those that the endpoint itself has no use for."""
        others = [entry for client, entry in sacrificed if not (entry.key == str(client.key) and self._is_due(entry))]
        own = [entry for _, entry in sacrificed if entry not in others]
        nearest = [entry for entry in self.nearest if entry not in own][: len(others)]
        assert set(others) == set(nearest), f'{others} had to go instead of {nearest}'

    def _take_down_idle(self) -> None:
        """Connections that were given back, and that nobody has got since, must have become idle."""
        world = self.world
        for entry in world.live(place='returned'):
            entry.place = 'idle'
            lent = len(world.live(entry.key, 'held')) + len(world.live(entry.key, 'returning'))
            core = [other for other in world.live(entry.key, 'idle') if not other.extra and other is not entry]
            entry.extra = lent + len(core) >= world.limits.min_idle
            entry.deadline = entry.expires
            if entry.extra:
                assert world.limits.idle_timeout > 0, f'{entry} should have been disposed of at once'
                entry.deadline = min(entry.expires, world.now + world.limits.idle_timeout)
            assert entry.expires > world.now and not world.core.closed, f'{entry} has become idle'

    # -- the promises

    def _check_wakes(self, actor: Optional[int]) -> None:
        """Whoever waited and has something to do now has been told so."""
        for number, client in self.world.clients.items():
            news = self.states.get(number) == 'waiting' and client.state != 'waiting'
            news = news or (client.victim is not None and self.victims.get(number) is None)
            if news and number != actor and number in self.wakes:
                assert client.wakes > self.wakes[number], f'{client} was not woken'

    def _check_counts(self) -> None:
        world, core = self.world, self.world.core
        assert core.total == world.slots() <= world.limits.total_max_size
        for name in world.names:
            key = Key(name)
            assert core.size(key) == world.slots(name) <= world.limits.max_size
            assert core.idle_size(key) == len(world.live(name, 'idle'))
            assert core.lent_size(key) == len(world.live(name, 'held')) + len(world.live(name, 'returning'))
            assert core.waiting(key) == len(world.in_state('waiting', name))
        found = {str(key) for key in core.endpoints()}
        needed = {name for name in world.names if world.slots(name) or world.in_state('waiting', name)}
        assert len(core.endpoints()) == len(found), 'an endpoint is there twice'
        assert needed <= found, f'endpoints {needed - found} are missing'
        kept = found - needed
        assert all(world.sacrifices(name) for name in kept), f'nothing is left of {kept}'

    def _check_nobody_waits_in_vain(self, name: str) -> None:
        world = self.world
        waiting = len(world.in_state('waiting', name))
        if not waiting:
            return
        idle = world.live(name, 'idle')
        assert all(map(self._is_due, idle)), f'{waiting} wait for {name} though one of {idle} could be taken'
        has_room = world.slots(name) < world.limits.max_size
        assert not has_room or world.slots() == world.limits.total_max_size, f'{waiting} wait for {name}, a slot is free'
        if waiting > len(world.sacrifices(name)):
            assert not idle, f'{waiting} wait for {name} though one of {idle} could make room'
        if self._is_blocked(name):
            idle = world.live(place='idle')
            assert not idle, f'{waiting} wait for {name} though one of {idle} could be evicted'

    def _check_order(self, granted: List[Client]) -> None:
        """First come, first served."""
        arrivals = self.world.arrivals
        for client in granted:
            for other in self.world.in_state('waiting', str(client.key)):
                if client.record is None:  # not by the fast path
                    assert arrivals[other.name] > arrivals[client.name], f'{client} was served before {other}'
                else:
                    raise AssertionError(f'{client} has taken a connection, {other} waits')

    def _check_bypass(self, granted: List[Client]) -> None:
        """An endpoint that only the total limit blocks is not passed over for ever."""
        world = self.world
        served = {str(client.key) for client in granted}
        handed = [client for client in granted if self.states.get(client.name) == 'waiting']
        for name in world.names:
            new_victim = any(c.victim is not None and self.victims.get(c.name) is None for c in self._of(name))
            if name not in self.blocked or not self._is_blocked(name) or name in served or new_victim:
                self.bypassed[name] = 0
            self.bypassed[name] += sum(str(client.key) != name for client in handed)
            # in each turn, slots may come in that had been promised to others before
            limit = (self.bypass_limit + 1 + world.limits.total_max_size) * len(world.names)
            assert self.bypassed[name] <= limit, f'{name} was passed over {self.bypassed[name]} times'

    def _check_sleepers(self) -> None:
        world = self.world
        if world.alarm is not None and not world.alarm.wakes:
            wakes_up = float('inf') if world.alarm_at is None else world.alarm_at
            late = [entry for entry in world.live(place='idle') if entry.deadline < wakes_up]
            assert not late, f'the collector oversleeps {late}'
            assert self.was_closed or not world.core.closed, 'the collector was not told that the pool is closed'
        for number, excused in world.joined.items():
            if world.core.drained(excused):
                assert world.clients[number].wakes, f'{number} waits for an empty pool to be empty'

    # -- parts

    def _of(self, name: str) -> List[Client]:
        return [client for client in self.world.clients.values() if str(client.key) == name]

    def _is_due(self, entry: Entry) -> bool:
        return entry.deadline <= self.world.now

    def _first_idle(self, name: str) -> Optional[Entry]:
        for entry in self.world.idle_in_order(name):
            if not self._is_due(entry):
                return entry
        return None

    def _is_blocked(self, name: str) -> bool:
        """Somebody waits for the total limit only, and no slot is on its way to him."""
        world = self.world
        waiting = len(world.in_state('waiting', name))
        if not waiting or world.core.closed:
            return False
        sacrifices = world.sacrifices(name)
        own = sum(entry.key == name for entry in sacrifices)
        return min(waiting, world.limits.max_size - world.slots(name) + own) > len(sacrifices)
