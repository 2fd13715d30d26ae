"""Hazards 12 to 22: waiting."""

from .change import ASYNCIO, PACKAGE, PURE, THREADS, Change

CHANGES = [
    Change(
        12,
        'a thread forgets a wake-up that comes before it sleeps',
        PURE + 'lock.py',
        (
            (
                '        deadline = None if timeout is None else monotonic() + timeout\n'
                '        left = LONGEST',
                '        self._lock.acquire(blocking=False)\n'
                '        deadline = None if timeout is None else monotonic() + timeout\n'
                '        left = LONGEST',
            ),
        ),
        ('c test_a_wake_up_before_the_sleep_is_not_lost',),
    ),
    Change(
        12,
        'a task forgets a wake-up that comes before it sleeps',
        ASYNCIO + 'waiter.py',
        (
            ('                if not self._woken:', '                if True:'),
        ),
        ('a test_a_wake_up_before_the_sleep_is_not_lost',),
    ),
    Change(
        13,
        'a released connection goes to the youngest who waits',
        PURE + 'policy.py',
        (
            ('        waiter = endpoint.waiters.head\n', '        waiter = endpoint.waiters.tail\n'),
        ),
        (
            'c test_waiters_of_an_endpoint_are_served_in_the_order_of_their_arrival',
            't test_waiters_are_served_in_the_order_of_arrival',
        ),
    ),
    Change(
        13,
        'a newcomer queues before those who wait',
        PURE + 'waiters.py',
        (
            (
                '        if before is not None and ticket.order < before.order:\n',
                '        if before is not None:\n'
                '            ticket.order = -ticket.order\n',
            ),
        ),
        (
            'c test_waiters_of_an_endpoint_are_served_in_the_order_of_their_arrival',
            'a test_tasks_that_hammer_a_pool_are_served_equally_often',
        ),
    ),
    Change(
        14,
        'a slot that becomes free is offered to nobody',
        PURE + 'policy.py',
        (
            ('            taker = self._choose_taker(endpoint, beneficiary)\n', '            taker = None\n'),
        ),
        (
            't test_after_an_error_of_dispose_the_next_waiter_gets_the_slot',
            'a test_every_way_in_which_a_slot_becomes_free_serves_who_waits',
            'c test_disposing_of_what_is_due_serves_a_waiter_of_another_endpoint',
        ),
    ),
    Change(
        15,
        'the slot of a failed creation is offered to nobody',
        PURE + 'core.py',
        (
            (
                '        self._free_slot(endpoint, None, woken)\n'
                '\n'
                '    @critical\n'
                '    def transfer',
                '        endpoint.reserved -= 1\n'
                '        self.total -= 1\n'
                '\n'
                '    @critical\n'
                '    def transfer',
            ),
        ),
        (
            't test_all_waiters_get_to_the_error_when_every_create_fails',
            'a test_each_of_those_who_wait_tries_when_create_keeps_failing',
            'c test_a_failed_creation_serves_the_next_waiter',
        ),
    ),
    Change(
        16,
        'a create that fails is tried again (threads)',
        PURE + 'thread_pool.py',
        (
            (
                '        conn = self._manager.create(endpoint, timeout=timeout)\n',
                '        try:\n'
                '            conn = self._manager.create(endpoint, timeout=timeout)\n'
                '        except Exception:\n'
                '            conn = self._manager.create(endpoint, timeout=timeout)\n',
            ),
        ),
        ('t test_an_error_of_create_propagates_and_frees_the_slot',),
    ),
    Change(
        16,
        'a create that fails is tried again (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                '                await self._connect(ticket, endpoint, remaining(deadline))\n',
                '                try:\n'
                '                    await self._connect(ticket, endpoint, remaining(deadline))\n'
                '                except Exception:\n'
                '                    await self._connect(ticket, endpoint, remaining(deadline))\n',
            ),
        ),
        ('a test_the_error_of_a_create_surfaces_at_once_and_is_not_retried',),
    ),
    Change(
        17,
        'leaving the queue searches it',
        PURE + 'waiters.py',
        (
            (
                '        before, after = ticket.prev, ticket.next\n',
                '        other = self.head\n'
                '        while other is not ticket and other is not None:\n'
                '            other = other.next\n'
                '        before, after = ticket.prev, ticket.next\n',
            ),
        ),
        ('t test_leaving_the_queue_costs_the_same_however_long_it_is',),
    ),
    Change(
        18,
        'a thread or task that waits for itself is not told so',
        PACKAGE + '_messages.py',
        (
            ('    if own:', '    if False:'),
        ),
        ('t test_a_thread_that_waits_for_itself_is_told_so', 'a test_a_task_that_waits_for_itself_is_told_so'),
    ),
    Change(
        18,
        'the tasks that hold connections are not told',
        ASYNCIO + 'pool.py',
        (
            ('PoolTimeoutError(text + self._holders.tell(self._core.holders(endpoint)))', 'PoolTimeoutError(text)'),
        ),
        ('a test_the_message_names_the_tasks_that_hold_connections', 'a test_a_task_that_waits_for_itself_is_told_so'),
    ),
    Change(
        18,
        'the error of a timeout tells nothing',
        ASYNCIO + 'pool.py',
        (
            (
                'raise PoolTimeoutError(text + self._holders.tell(self._core.holders(endpoint))) from None',
                "raise PoolTimeoutError('timeout') from None",
            ),
        ),
        ('a test_the_message_tells_the_endpoint_the_wait_and_the_state_of_the_pool',),
    ),
    Change(
        19,
        'a thread that waits spins',
        PURE + 'lock.py',
        (
            ('timeout=min(max(left, 0.0), LONGEST_WAIT)', 'timeout=0.0'),
        ),
        ('t test_who_waits_uses_no_processor',),
    ),
    Change(
        19,
        'a release wakes all who wait',
        PURE + 'policy.py',
        (
            (
                '        endpoint.waiters.remove(ticket)\n'
                '        woken[ticket] = None\n',
                '        other = endpoint.waiters.head\n'
                '        while other is not None:\n'
                '            woken[other] = None\n'
                '            other = other.next\n'
                '        endpoint.waiters.remove(ticket)\n',
            ),
        ),
        ('c test_one_release_wakes_one', 'a test_one_release_wakes_one_waiter'),
    ),
    Change(
        20,
        'what is released lies idle although another endpoint waits for the total limit',
        PURE + 'policy.py',
        (
            (
                '            if rival is None:\n'
                '                record.deadline',
                '            if True:\n'
                '                record.deadline',
            ),
        ),
        ('t test_a_connection_released_and_idle_serves_who_waits_for_the_total_limit_at_once',),
    ),
    Change(
        20,
        'an endpoint that waits for the total limit is bypassed for ever',
        PURE + 'policy.py',
        (
            ('rival is endpoint or rival.bypassed < self._bypass_limit:', 'True:'),
        ),
        (
            'c test_a_hammered_endpoint_lets_another_have_its_turn',
            'a test_an_endpoint_that_waits_for_the_total_limit_is_bypassed_a_bounded_number_of_times',
        ),
    ),
    Change(
        20,
        'what is idle elsewhere is not evicted for who needs the total limit',
        PURE + 'policy.py',
        (
            (
                '                record = self._heap.nearest()\n'
                '                if record is None',
                '                record = None\n'
                '                if record is None',
            ),
        ),
        (
            't test_an_acquire_for_another_endpoint_evicts_an_idle_connection',
            'c test_with_the_total_reached_the_idle_connection_of_another_endpoint_is_evicted_at_once',
        ),
    ),
    Change(
        21,
        'timeout=0 fails before it has looked (threads)',
        THREADS + 'pool.py',
        (
            (
                '        self._core.request(ticket, endpoint, started)\n'
                '        while True:',
                '        if timeout == 0.0:\n'
                '            raise ConnectionPoolTimeoutError(self._tell_timeout(endpoint, 0.0))\n'
                '        self._core.request(ticket, endpoint, started)\n'
                '        while True:',
            ),
        ),
        ('t test_a_timeout_of_zero_takes_an_idle_connection',),
    ),
    Change(
        21,
        'the timeout is that of asyncio.wait_for',
        ASYNCIO + 'pool.py',
        (
            (
                '            await self._serve(ticket, waiter, endpoint, deadline, started)\n',
                '            try:\n'
                '                await asyncio.wait_for(self._serve(ticket, waiter, endpoint, '
                'deadline, started), timeout)\n'
                '            except asyncio.TimeoutError:\n'
                '                raise DeadlinePassed\n',
            ),
        ),
        ('a test_a_timeout_of_0_takes_an_idle_connection',),
    ),
]
