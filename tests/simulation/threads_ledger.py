"""What a threads pool promises, by the manager's and the users' own books."""

from typing import Any, Dict, List, Optional

from simulation.stage import Stage, Strand

from generic_connection_pool._core import CONNECTION, SLOT, WAITING

__all__ = ('Conn', 'Ledger', 'Request')


class Conn:
    """A connection of the simulation."""

    __slots__ = ('endpoint', 'number', 'born', 'user', 'hook', 'disposals', 'unfit', 'loans', 'reported')

    def __init__(self, endpoint: int, number: int, born: float):
        self.endpoint = endpoint
        self.number = number
        self.born = born
        #: the strand that has it
        self.user: Optional[Strand] = None
        #: the hook that is at work on it
        self.hook: Optional[str] = None
        #: how often its disposal has begun
        self.disposals = 0
        #: why nobody may get it any more
        self.unfit: Optional[str] = None
        self.loans = 0
        #: its death has been reported to the manager
        self.reported = False

    def __repr__(self) -> str:
        return f'{"abcdefgh"[self.endpoint]}{self.number}'


class Request:
    """An acquire that is under way."""

    __slots__ = ('strand', 'ticket', 'endpoint', 'arrival', 'state')

    def __init__(self, strand: Strand, ticket: Any, endpoint: int):
        self.strand = strand
        self.ticket = ticket
        self.endpoint = endpoint
        #: when the core first answered it, counted in such answers
        self.arrival = 0
        self.state = 0


class Ledger:
    """The books, and what is checked in them.

    :param stage: where the pool plays
    :param limits: the parameters of the pool
    :param by_line: threads may be stopped between any two lines, so that operations of the facade are in pieces
    """

    def __init__(self, stage: Stage, limits: Dict[str, Any], by_line: bool):
        self.stage = stage
        self.max_size: int = limits['max_size']
        self.total_max_size: int = limits['total_max_size']
        self.max_lifetime: float = limits['max_lifetime']
        self.by_line = by_line
        self.pool: Any = None
        self.core: Any = None
        self.conns: List[Conn] = []
        #: open connections of each endpoint, those being opened and closed included
        self.open: Dict[int, int] = {}
        self.total = 0
        #: those among them that are being opened, in slots that tickets hold
        self.creating: Dict[int, int] = {}
        self.requests: List[Request] = []
        self.arrivals = 0
        #: from when on connections may be disposed of while they are in use
        self.force_from = float('inf')
        #: a close has disposed of what was in use
        self.forced = False
        #: each disposal can have a thread of its own
        self.enough_workers = True
        self.collector: Optional[Strand] = None
        self._checked = -1

    # -- what the manager writes down

    def begin_create(self, endpoint: int) -> None:
        """A connection is about to be opened."""
        count = self.open[endpoint] = self.open.get(endpoint, 0) + 1
        self.total += 1
        self.creating[endpoint] = self.creating.get(endpoint, 0) + 1
        self.demand(count <= self.max_size, 'too many open', count, endpoint)
        self.demand(self.total <= self.total_max_size, 'too many open in all', self.total)

    def created(self, endpoint: int) -> Conn:
        """It is open."""
        self.creating[endpoint] -= 1
        conn = Conn(endpoint, len(self.conns) + 1, self.stage.clock.now)
        self.conns.append(conn)
        return conn

    def not_created(self, endpoint: int) -> None:
        """It could not be opened."""
        self.creating[endpoint] -= 1
        self.disposed(endpoint)

    def disposed(self, endpoint: int) -> None:
        """It is closed."""
        self.open[endpoint] -= 1
        self.total -= 1

    def begin_hook(self, hook: str, endpoint: int, conn: Conn) -> None:
        """A hook is called with a connection."""
        self.demand(conn.endpoint == endpoint, 'wrong endpoint', hook, conn, endpoint)
        forced = self.is_forced
        if hook == 'dispose':
            self.demand(conn.disposals == 0, 'disposed of twice', conn)
            conn.disposals += 1
            self.demand(conn.unfit != 'dead' or conn.reported or self.by_line, 'death not reported', conn)
        else:
            self.demand(conn.disposals == 0 or forced, 'disposed of', hook, conn)
        self.demand(conn.user is None or forced, 'in use', hook, conn, conn.user)
        self.demand(conn.hook is None or forced, 'two hooks at once', hook, conn.hook, conn)

    # -- what the users write down

    def lent(self, conn: Conn, endpoint: int, since: Optional[float] = None) -> None:
        """A user has got a connection; if it was idle, ``since`` tells when it was asked for."""
        self.demand(isinstance(conn, Conn) and conn.endpoint == endpoint, 'wrong connection', conn, endpoint)
        self.demand(conn.user is None, 'crossed', conn, conn.user)
        self.demand(conn.disposals == 0 or self.is_forced, 'handed out after its disposal', conn)
        self.demand(conn.hook is None or self.is_forced, 'handed out during a hook', conn, conn.hook)
        self.demand(conn.unfit is None, 'handed out though unfit', conn, conn.unfit)
        self.demand(self.by_line or not self.core.closed, 'handed out by a closed pool', conn)
        if since is not None:
            self.demand(since < conn.born + self.max_lifetime, 'handed out past its lifetime', conn)
            waiting = [other for other in self.requests if other.endpoint == endpoint and other.ticket.state == WAITING]
            self.demand(not waiting, 'overtaken', waiting, endpoint)
        conn.loans += 1
        conn.user = self.stage.running

    def given_back(self, conn: Conn) -> None:
        """A user is about to release a connection."""
        conn.user = None

    @property
    def is_forced(self) -> bool:
        """Whether what is in use may have been disposed of."""
        return self.stage.clock.now >= self.force_from

    # -- what is checked at each step

    def inspect(self) -> None:
        """Between two atomic operations."""
        core = self.core
        if core is None:
            return
        mutex = getattr(core, 'mutex', None)  # of the pure core
        if mutex is None:
            core.check_invariants()
        elif mutex.lock.owner is not None:
            return
        elif self._checked != self.stage.operations:
            self._checked = self.stage.operations
            core.check_invariants()
        if self.requests:
            self._check_order()
            if not self.by_line:
                self._check_sleepers()

    def _check_order(self) -> None:
        """First come, first served: who waits was not overtaken by those who came to its endpoint later."""
        served = None
        for request in self.requests:
            state = request.ticket.state
            if state != request.state:
                if not request.arrival:
                    self.arrivals += 1
                    request.arrival = self.arrivals
                if state == WAITING:
                    self.stage.choices.tally['waits'] += 1
                elif (state == SLOT or state == CONNECTION) and request.state != SLOT:
                    served = [*(served or ()), request]
                    if state == CONNECTION:
                        self._check_age(request.ticket.record.conn)
                request.state = state
        for request in served or ():
            for other in self.requests:
                waits = other.endpoint == request.endpoint and other.ticket.state == WAITING
                if waits and not self.by_line and other.arrival < request.arrival:
                    self.demand(False, 'overtaken', other.strand, request.strand)

    def _check_age(self, conn: Conn) -> None:
        """What was granted just now was not overdue (by the pure core's clock, which it reads before it locks)."""
        if not self.by_line and not hasattr(self.core, 'mutex'):
            overdue = self.stage.clock.now >= conn.born + self.max_lifetime
            self.demand(not overdue, 'granted past its lifetime', conn)

    def _check_sleepers(self) -> None:
        """Who has something to do has been woken."""
        for request in self.requests:
            place = request.strand.place
            if place is not None and self.stage.is_asleep(place) and self._is_of(place, request):
                idle = request.ticket.state == WAITING and request.ticket.victim is None
                self.demand(idle, 'asleep', request.strand, request.ticket.state)

    def _is_of(self, place: Any, request: Request) -> bool:
        """Whether it is for this request, and not for one made in a hook of it, that its strand sleeps."""
        last = [other for other in self.requests if other.strand is request.strand][-1]
        return last is request and request.strand.closing == 0

    # -- what is checked when nobody can go on before time does

    def inspect_asleep(self) -> None:
        """Everybody sleeps, or is in a hook."""
        if self.core is None:
            return
        self.inspect()
        self._check_sleepers()
        granted = [request.endpoint for request in self.requests if request.ticket.state == SLOT]
        total = self.total - sum(self.creating.values()) + len(granted)
        for request in self.requests:
            if request.ticket.state == WAITING and request.ticket.victim is None:
                endpoint = request.endpoint
                count = self.open.get(endpoint, 0) - self.creating.get(endpoint, 0) + granted.count(endpoint)
                room = count < self.max_size and total < self.total_max_size
                self.demand(not room, 'waits in vain', request.strand, endpoint)
        if self.forced:
            left = [conn for conn in self.conns if conn.user is not None and not conn.disposals]
            self.demand(not left, 'left open by a forced close', left)
        collector = self.collector
        if collector is None or self.core.closed or self.by_line:
            return
        self.demand(not collector.done, 'the collector is gone', collector)
        if self.stage.is_asleep(collector.place):
            since = self.stage.clock.now - self.max_lifetime
            for conn in self.conns:
                if conn.born < since and conn.user is None and conn.hook is None and not conn.disposals:
                    self.demand(not self.core.idle_size(conn.endpoint), 'overdue', conn)

    # -- what is checked in the end

    def check_accounts(self) -> None:
        """The pool is closed, and everybody has gone home."""
        self.core.check_invariants()
        lost = [conn for conn in self.conns if conn.disposals != 1]
        self.demand(not lost, 'lost', lost)
        self.demand(self.total == 0, 'books', self.open)
        self.demand(self.core.total == 0, 'slots lost', self.core.total)
        self.demand(self.core.endpoints() == [], 'endpoints left', self.core.endpoints())
        self.demand(not self.requests, 'books', self.requests)

    def tell(self) -> str:
        """The state of the pool."""
        core, endpoints = self.core, sorted(self.open)
        counts = [(e, core.size(e), core.lent_size(e), core.idle_size(e), core.waiting(e)) for e in endpoints]
        waiting = [(request.strand, request.endpoint, request.ticket.state) for request in self.requests]
        return (
            f'closed {core.closed}, {core.total} slots in use, (endpoint, all, lent, idle, waiting): {counts}, tickets '
            f'(strand, endpoint, state): {waiting}, open by the manager: {self.open}'
        )

    def demand(self, true: bool, name: str, *what: object) -> None:
        """End the run unless something is true."""
        if not true:
            error = AssertionError(f'{name}: {", ".join(map(repr, what))}')
            if self.stage.inspecting:
                raise error
            self.stage.fail(error)
