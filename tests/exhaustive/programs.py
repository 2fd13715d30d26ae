"""What threads do with a core, one operation at a time.

Each program is a generator. It stops before each operation of the core and yields when it may go on: ``None`` is at any
time, otherwise a function that tells. So a run of several programs is determined by whose turn it is at each step.
"""

from typing import Any, Callable, Generator, List, Optional

from exhaustive.account import CLOSED, CONNECTION, SLOT, WAITING, Account, Conn, Party

__all__ = ('Program', 'Steps', 'Thread')

#: when the program may go on
Ready = Optional[Callable[[], bool]]
Steps = Generator[Ready, None, Any]
Program = Callable[['Thread'], Steps]


class Thread(Party):
    """One thread of a case, and the steps that its program is made of."""

    def __init__(self, account: Account, name: str, program: Program):
        super().__init__(account, name)
        account.parties.append(self)
        self.steps = program(self)
        self.ready: Ready = None
        self.begun = False
        self.done = False
        #: connections that are somebody else's task to dispose of
        self.bin: List[Any] = []
        #: what it saw when it last looked at its ticket
        self.seen = 0

    def advance(self) -> None:
        """Do the next operation. Waking up is no operation of its own."""
        sleeps = self.ready is not None
        try:
            self.ready = next(self.steps)
            if sleeps and self.ready is None:
                self.ready = next(self.steps)
        except StopIteration:
            self.done = True

    def do(self, operation: Callable[..., Any], *args: Any) -> Any:
        """Do an operation of the core, and write down what came of it."""
        answer = operation(*args)
        self.account.settle(self)
        return answer

    def is_woken(self) -> bool:
        return self.woken

    # -- acquiring

    def take(self, key: str) -> Steps:
        """The fast path."""
        account = self.account
        yield None
        self.key = key
        record = account.core.take(key, account.now, 0)
        self.ticket = None
        if record is not None:
            assert not [p for p in account.parties if p.state == WAITING and p.key == key], 'somebody waits'
            account.lent(self, record)
        return record is not None

    def request(
        self, key: str, *, patience: str = 'endless', fails: bool = False, helper: 'Optional[Thread]' = None
    ) -> Steps:
        """Ask for a connection and do what the core says until there is one. Returns whether there is.

        :param patience: ``'endless'``; ``'timeout'``: while it waits, time is up at any moment; ``'cancel'``: the same,
            and it no longer wants what it was granted at that moment
        :param fails: creating fails
        :param helper: who disposes of its victims
        """
        account = self.account
        yield None
        self.key = key
        self.new_ticket()
        account.arrivals += 1
        self.arrival = account.arrivals
        self.do(account.core.request, self.ticket, key, account.now)
        return (yield from self._serve(patience, fails, helper))

    def _serve(self, patience: str, fails: bool, helper: 'Optional[Thread]') -> Steps:
        ticket = self.ticket
        while True:
            self.seen = ticket.state
            if ticket.victim is not None:
                yield None
                self.see_to_victim(ticket, helper)
            if self.seen == WAITING:
                if patience == 'endless':
                    yield self.is_woken
                    self.woken = False
                    continue
                yield None
                if self.do(self.account.core.withdraw, ticket) or patience == 'cancel':
                    yield from self._abandon(helper)
                    return False
            elif self.seen == SLOT:
                yield None
                if fails:
                    self.do(self.account.core.fail, ticket)
                    return False
                return (yield from self._fulfil())
            elif self.seen == CLOSED:
                return False
            else:
                assert self.seen == CONNECTION and self.conn is not None
                return True

    def _fulfil(self) -> Steps:
        account, ticket = self.account, self.ticket
        conn = account.created(self)
        if self.do(account.core.fulfil, ticket, conn, account.now):
            return True
        assert account.closed, 'a slot was refused'
        record = account.doomed(ticket.record)
        yield from self._dispose(record)
        return False

    def see_to_victim(self, ticket: Any, helper: 'Optional[Thread]') -> None:
        """Dispose of the ticket's victim, or have that done."""
        record = ticket.take_victim()
        self.victim = None
        if helper is None:
            self.account.gone(record)
            self.do(self.account.core.disposed, record, ticket)
        else:
            helper.bin.append(record)
            self.do(self.account.core.rest, ticket)

    def _abandon(self, helper: 'Optional[Thread]') -> Steps:
        ticket = self.ticket
        if self.ticket.state == SLOT:
            yield None
            self.do(self.account.core.fail, self.ticket)
        elif self.ticket.state == CONNECTION:
            yield from self._give_back(self.ticket.record)
        if ticket.victim is not None:
            yield None
            self.see_to_victim(ticket, helper)

    def replace(self, **ways: Any) -> Steps:
        """The connection is dead: get another. Returns whether there is one."""
        yield None
        conn, self.conn = self.conn, None
        assert conn is not None
        is_lent = conn.place == 'held'
        assert is_lent or self.account.forced
        if is_lent:
            self.victim = self.account.doomed(conn.record)
            conn.promised_to = self.key
        self.do(self.account.core.replace, self.ticket, self.account.now)
        assert self.ticket.victim is self.victim
        return (yield from self._serve(ways.get('patience', 'endless'), ways.get('fails', False), ways.get('helper')))

    def hand_on_slot(self, key: str, fails: bool) -> Steps:
        """A creation that is cancelled keeps its slot until it has ended: another ticket gets it."""
        account = self.account
        yield None
        self.key = key
        self.new_ticket()
        account.arrivals += 1
        self.arrival = account.arrivals
        self.do(account.core.request, self.ticket, key, account.now)
        while self.ticket.state == WAITING:
            yield self.is_woken
            self.woken = False
        if self.ticket.state == CLOSED:
            return
        if self.ticket.state == CONNECTION:
            yield from self._give_back(self.ticket.record)
            return
        yield None
        heir = account.new_ticket(self.wake)
        account.core.transfer(self.ticket, heir)
        assert self.ticket.state == 0
        self.ticket = heir
        account.settle(self)
        yield None
        if fails:
            self.do(account.core.fail, heir)
        elif (yield from self._fulfil()):
            yield from self.discard()

    # -- releasing

    def release(self) -> Steps:
        """Give the connection back."""
        yield from self.release_loan(self.conn, self.loan)

    def release_loan(self, conn: Optional[Conn], loan: int) -> Steps:
        """Give a connection back by somebody's loan. Returns whether that loan was still on."""
        assert conn is not None
        yield None
        held = self.do(self.account.core.take_back, conn.record, loan)
        holder = conn.holder
        # it was on exactly if its holder has it as that loan, and nobody's release of it has begun
        is_on = holder is not None and holder.loan == loan and conn.place == 'held'
        assert held == is_on, f'a release of loan {loan} of {conn} was answered {held}'
        if not held:
            self.forget(conn)
            return False
        conn.place = 'returning'
        yield from self._give_back(conn.record)
        return True

    def _give_back(self, record: Any) -> Steps:
        yield None
        account, conn = self.account, record.conn
        if conn.place not in ('held', 'returning'):  # closed by force meanwhile
            assert account.forced
            self.forget(conn)
            assert self.do(account.core.give_back, record, account.now)
            return
        holder, conn.holder = conn.holder, None
        holder.forget(conn)
        conn.place = 'returned'
        if account.core.give_back(record, account.now):
            account.settle(self)
        else:
            account.doomed(record)
            account.settle(self)
            yield from self._dispose(record)

    def discard(self) -> Steps:
        """Take the connection out of use."""
        conn = self.conn
        assert conn is not None
        yield None
        self.forget(conn)
        if self.do(self.account.core.discard, conn.record):
            yield from self._dispose(self.account.doomed(conn.record))
        else:
            assert self.account.forced

    def forget(self, conn: Conn) -> None:
        """It does not have this connection any more."""
        if self.conn is conn:
            self.conn, self.ticket, self.state = None, None, 0

    def _dispose(self, record: Any) -> Steps:
        yield None
        self.account.gone(record)
        self.do(self.account.core.disposed, record)

    # -- the collector, and closing

    def pass_time(self, seconds: float) -> Steps:
        yield None
        self.account.now += seconds

    def collect(self) -> Steps:
        """Dispose of one connection that is due. Returns whether there was one."""
        yield None
        account = self.account
        record = self.do(account.core.next_due, account.now)
        due = [conn for conn in account.conns if conn.place == 'idle' and conn.deadline <= account.now]
        if record is None:
            assert not due, f'{due} are due'
            return False
        assert record.conn in due, f'{record.conn} is not due'
        assert record.conn.deadline == min(conn.deadline for conn in due)
        yield from self._dispose(account.doomed(record))
        return True

    def sleep_until_due(self) -> Steps:
        """Sleep until something may be due: until its time has come, or the alarm wakes."""
        account = self.account
        yield None
        self.new_ticket()
        due = self.do(account.core.set_alarm, self.ticket)
        if account.core.closed:
            account.alarm = None
            return
        account.alarm, account.alarm_at = self, float('inf') if due is None else due
        yield lambda: self.woken or (due is not None and due <= account.now)

    def no_alarm(self) -> Steps:
        yield None
        self.do(self.account.core.set_alarm, None)
        self.account.alarm = self.ticket = None

    def close(self) -> Steps:
        yield None
        self.account.closed = True
        self.do(self.account.core.close)

    def empty(self) -> Steps:
        """Dispose of what is idle."""
        account = self.account
        while True:
            yield None
            record = self.do(account.core.next_idle)
            if record is None:
                assert not [conn for conn in account.conns if conn.place == 'idle']
                return
            yield from self._dispose(account.doomed(record))

    def drain(self) -> Steps:
        """Wait until all slots are free."""
        account = self.account
        yield None
        self.new_ticket()
        ticket = self.ticket
        if self.do(account.core.join, ticket, 0):
            return
        while not account.core.drained(0):
            yield self.is_woken
            self.woken = False
        yield None
        self.do(account.core.leave, ticket, 0)
        self.ticket = None

    def force(self) -> Steps:
        """Take all acquired connections away from their users (in which order, the core does not promise)."""
        account = self.account
        yield None
        record = account.core.next_lent()
        taken = []
        while record is not None:
            account.forced = True
            assert record.conn.place in ('held', 'returning')
            taken.append(account.doomed(record))
            record = account.core.next_lent()
        assert not [conn for conn in account.conns if conn.place in ('held', 'returning')]
        for record in sorted(taken, key=lambda record: str(record.conn.name)):
            yield from self._dispose(record)

    def outdate(self) -> Steps:
        yield None
        self.do(self.account.core.outdate)
        for conn in self.account.conns:
            if conn.place in ('held', 'returning'):
                conn.expires = float('-inf')

    # -- others

    def work(self) -> Steps:
        """Dispose of what others have left to it, until there are no others."""
        others = [party for party in self.account.parties if party is not self and isinstance(party, Thread)]

        def wanted() -> bool:
            return bool(self.bin) or all(other.done for other in others)

        while True:
            yield wanted
            if not self.bin:
                return
            record = self.bin.pop(0)
            self.account.gone(record)
            self.do(self.account.core.disposed, record)
