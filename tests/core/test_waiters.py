import random
from typing import Any, List

import pytest
from support.core_desk import Desk
from support.core_twins import Twin, all_twins, twins_of


@pytest.mark.parametrize('twin', twins_of('waiters', 'WaitQueue'))
class TestWaitQueue:
    def queue(self, twin: Twin) -> Any:
        return twin.get('waiters', 'WaitQueue')()

    def ticket(self, twin: Twin, order: int, on_duty: bool = False) -> Any:
        ticket = twin.get('waiters', 'Ticket')(0, lambda: None)
        ticket.order, ticket.on_duty = order, on_duty
        return ticket

    def tickets_in(self, queue: Any) -> List[Any]:
        tickets, ticket, before = [], queue.head, None
        while ticket is not None:
            assert ticket.prev is before
            tickets.append(ticket)
            ticket, before = ticket.next, ticket
        assert queue.tail is before
        assert len(queue) == len(tickets)
        return tickets

    def test_tickets_stand_in_the_order_of_their_arrival(self, twin: Twin) -> None:
        queue, tickets = self.queue(twin), [self.ticket(twin, order) for order in range(4)]
        for ticket in tickets:
            queue.push(ticket)
        assert self.tickets_in(queue) == tickets

    @pytest.mark.parametrize('order', [0, 2, 4, 6, 8])
    def test_a_ticket_that_comes_back_takes_its_old_place(self, twin: Twin, order: int) -> None:
        queue, tickets = self.queue(twin), [self.ticket(twin, order) for order in (1, 3, 5, 7)]
        for ticket in tickets:
            queue.push(ticket)
        back = self.ticket(twin, order, on_duty=True)
        queue.push(back)
        assert self.tickets_in(queue) == sorted([*tickets, back], key=lambda ticket: int(ticket.order))

    @pytest.mark.parametrize('index', range(4))
    def test_a_ticket_can_leave_from_any_place(self, twin: Twin, index: int) -> None:
        queue, tickets = self.queue(twin), [self.ticket(twin, order) for order in range(4)]
        for ticket in tickets:
            queue.push(ticket)
        gone = tickets.pop(index)
        queue.remove(gone)
        assert self.tickets_in(queue) == tickets
        assert (gone.prev, gone.next) == (None, None)
        assert queue.off_duty is tickets[0]

    def test_an_emptied_queue_has_nobody_for_duty(self, twin: Twin) -> None:
        queue, ticket = self.queue(twin), self.ticket(twin, 1)
        queue.push(ticket)
        queue.remove(ticket)
        assert (queue.head, queue.tail, queue.off_duty, len(queue)) == (None, None, None, 0)

    def test_victims_go_to_tickets_in_turn(self, twin: Twin) -> None:
        queue, tickets = self.queue(twin), [self.ticket(twin, order) for order in range(3)]
        for ticket in tickets:
            queue.push(ticket)
        for ticket in tickets:
            assert queue.off_duty is ticket
            queue.go_on_duty(ticket, f'victim of {ticket.order}')
            assert ticket.on_duty and ticket.victim == f'victim of {ticket.order}'
        assert queue.off_duty is None

    def test_a_ticket_on_duty_is_passed_over_until_it_comes_off_duty(self, twin: Twin) -> None:
        queue, tickets = self.queue(twin), [self.ticket(twin, order) for order in range(3)]
        for ticket in tickets:
            queue.push(ticket)
        queue.go_on_duty(tickets[0], 'victim')
        queue.go_on_duty(tickets[1], 'victim')
        queue.come_off_duty(tickets[1])
        assert queue.off_duty is tickets[1]
        queue.come_off_duty(tickets[0])
        assert queue.off_duty is tickets[0]
        queue.go_on_duty(tickets[0], 'victim')
        assert queue.off_duty is tickets[1]

    def test_a_ticket_that_comes_on_duty_gets_no_other_victim(self, twin: Twin) -> None:
        queue = self.queue(twin)
        queue.push(self.ticket(twin, 1, on_duty=True))
        assert queue.off_duty is None
        later = self.ticket(twin, 2)
        queue.push(later)
        assert queue.off_duty is later

    def test_the_next_is_on_call_when_the_one_on_call_leaves(self, twin: Twin) -> None:
        queue, tickets = self.queue(twin), [self.ticket(twin, order) for order in range(3)]
        for ticket in tickets:
            queue.push(ticket)
        queue.go_on_duty(tickets[1], 'victim')
        assert queue.off_duty is tickets[0]
        queue.remove(tickets[0])
        assert queue.off_duty is tickets[2]
        queue.remove(tickets[2])
        assert queue.off_duty is None

    def test_whoever_is_on_call_is_always_the_first_off_duty(self, twin: Twin) -> None:
        draw = random.Random(4)
        queue, arrivals = self.queue(twin), 0
        inside: List[Any] = []
        outside: List[Any] = []
        for _ in range(1000):
            what = draw.choice(['push', 'push', 'back', 'remove', 'on', 'off'])
            if what == 'push':
                arrivals += 1
                inside.append(self.ticket(twin, arrivals, draw.random() < 0.3))
                queue.push(inside[-1])
            elif what == 'back' and outside:
                ticket = outside.pop(draw.randrange(len(outside)))
                ticket.on_duty = draw.random() < 0.5
                inside.append(ticket)
                inside.sort(key=lambda ticket: int(ticket.order))
                queue.push(ticket)
            elif what == 'remove' and inside:
                outside.append(inside.pop(draw.randrange(len(inside))))
                queue.remove(outside[-1])
            elif what == 'on' and queue.off_duty is not None:
                queue.go_on_duty(queue.off_duty, 'victim')
            elif what == 'off':
                busy = [ticket for ticket in inside if ticket.on_duty]
                if busy:
                    queue.come_off_duty(draw.choice(busy))
            assert self.tickets_in(queue) == inside
            assert queue.off_duty is next((ticket for ticket in inside if not ticket.on_duty), None)


@pytest.mark.parametrize('twin', twins_of('waiters', 'Ring'))
class TestRing:
    def endpoints_in(self, ring: Any) -> List[Any]:
        endpoints, endpoint, before = [], ring.head, None
        while endpoint is not None:
            assert endpoint.ring is ring and endpoint.ring_prev is before
            endpoints.append(endpoint)
            endpoint, before = endpoint.ring_next, endpoint
        assert ring.tail is before
        return endpoints

    @pytest.mark.parametrize('index', range(3))
    def test_an_endpoint_whose_turn_is_over_goes_behind_the_others(self, twin: Twin, index: int) -> None:
        ring = twin.get('waiters', 'Ring')()
        endpoints = [twin.get('endpoint', 'Endpoint')(key, 0) for key in 'abc']
        for endpoint in endpoints:
            ring.append(endpoint)
        assert self.endpoints_in(ring) == endpoints
        gone = endpoints.pop(index)
        gone.bypassed = 5
        ring.remove(gone)
        assert self.endpoints_in(ring) == endpoints
        assert (gone.ring, gone.ring_prev, gone.ring_next) == (None, None, None)
        ring.append(gone)
        assert self.endpoints_in(ring) == [*endpoints, gone]
        assert gone.bypassed == 0, 'it is counted anew'

    def test_an_emptied_ring_can_be_used_again(self, twin: Twin) -> None:
        ring, endpoint = twin.get('waiters', 'Ring')(), twin.get('endpoint', 'Endpoint')('a', 0)
        for _ in range(2):
            ring.append(endpoint)
            ring.remove(endpoint)
        assert (ring.head, ring.tail) == (None, None)


@pytest.mark.parametrize('twin', all_twins())
class TestTicket:
    def test_a_new_ticket_holds_nothing_and_waits_for_nothing(self, twin: Twin) -> None:
        ticket = twin.get('waiters', 'Ticket')(5)
        assert ticket.state == twin.get('waiters', 'NOTHING')
        assert (ticket.record, ticket.victim, ticket.take_victim()) == (None, None, None)
        assert (ticket.holder, ticket.dirty) == (5, False)

    def test_a_ticket_without_a_callback_can_be_waited_for(self, twin: Twin) -> None:
        ticket = twin.get('waiters', 'Ticket')()
        assert not ticket.wait(0.0)
        ticket.wake()
        assert ticket.wait(0.0)
        assert not ticket.wait(0.0)

    def test_a_ticket_with_a_callback_calls_it_each_time_and_cannot_be_waited_for(self, twin: Twin) -> None:
        calls: List[str] = []
        ticket = twin.get('waiters', 'Ticket')(0, lambda: calls.append('woken'))
        ticket.wake()
        ticket.wake()
        assert calls == ['woken', 'woken']
        with pytest.raises(RuntimeError, match='notify'):
            ticket.wait(0.0)

    def test_a_ticket_that_is_revoked_has_nothing_and_is_told_so_by_its_state(self, twin: Twin) -> None:
        desk = Desk(twin, total_max_size=1)
        desk.idle('a')
        client = desk.request('b')
        assert client.victim is not None
        client.ticket.revoke()
        assert (client.state, client.ticket.record, client.victim) == ('closed', None, None)

    def test_a_ticket_that_has_asked_for_nothing_can_rest(self, twin: Twin) -> None:
        desk = Desk(twin)
        client = desk.client()
        desk.core.rest(client.ticket)
        assert client.request('a').state == 'slot'
        desk.check()
