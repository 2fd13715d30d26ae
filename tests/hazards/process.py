"""Hazards 37 to 43: the process."""

from .change import ASYNCIO, ASYNCIO_HOOKS, PACKAGE, PURE, THREADS, Change

CHANGES = [
    Change(
        37,
        'a finalizer gets in the middle of an operation of its own thread',
        PURE + 'lock.py',
        (
            ('                if mutex.busy:\n', '                if False:\n'),
        ),
        ('c test_a_finalizer_inside_an_operation_of_the_pure_core_is_refused_with_the_state_unharmed',),
    ),
    Change(
        37,
        'a finalizer blocks on the lock that its own thread holds',
        PURE + 'lock.py',
        (
            ('        self.lock = threading.RLock()', '        self.lock = threading.Lock()'),
        ),
        ('c test_a_finalizer_inside_an_operation_of_the_pure_core_is_refused_with_the_state_unharmed',),
    ),
    Change(
        37,
        'what a finalizer releases is lost',
        PURE + 'thread_pool.py',
        (
            (
                '            return self._core.mutex.defer(lambda: self._return(record, loan, exc))',
                '            return None',
            ),
        ),
        ('t test_a_finalizer_may_leave_a_block_at_any_bytecode',),
    ),
    Change(
        38,
        'a child goes on with the pools of its parent',
        PACKAGE + '_fork.py',
        (
            ('    _pools.add(pool)\n', '    pass\n'),
        ),
        ('p test_a_child_has_none_of_the_connections_and_the_parent_has_them_all',),
    ),
    Change(
        38,
        "a child keeps the descriptors of its parent's connections",
        PACKAGE + '_fork.py',
        (
            (
                '        os.dup2(inert.fileno(), fd, inheritable=False)\n'
                '    if isinstance(conn, socket.socket):\n'
                '        conn.close()\n',
                '        pass\n',
            ),
        ),
        ('p test_a_child_releases_the_descriptors_of_plain_sockets',),
    ),
    Change(
        39,
        'the collector keeps the interpreter alive',
        THREADS + 'collector.py',
        (
            ('name=NAME, daemon=True', 'name=NAME, daemon=False'),
        ),
        ('t test_it_is_a_daemon_thread_named_gcp_collector',),
    ),
    Change(
        39,
        'the collector keeps its pool alive (threads)',
        THREADS + 'collector.py',
        (
            (
                '    pool_ref = weakref.ref(pool, lambda _: ticket.wake())\n',
                '    def pool_ref() -> object:\n'
                '        return pool\n'
                '\n',
            ),
        ),
        ('t test_it_does_not_keep_its_pool_alive_and_ends_with_it',),
    ),
    Change(
        39,
        'the collector keeps its pool alive (asyncio)',
        ASYNCIO + 'collector.py',
        (
            (
                '    pool_ref = weakref.ref(pool, lambda _: waiter.notify())\n',
                '    def pool_ref() -> object:\n'
                '        return pool\n'
                '\n',
            ),
        ),
        ('a test_it_does_not_keep_a_pool_alive_that_nobody_uses_any_more',),
    ),
    Change(
        39,
        'a pool that is freed open says nothing',
        ASYNCIO + 'pool.py',
        (
            ('        if core is not None and not core.closed:', '        if False:'),
        ),
        ('a test_a_pool_that_is_garbage_collected_while_open_warns',),
    ),
    Change(
        40,
        'a second event loop gets the connections of the first',
        ASYNCIO + 'pool.py',
        (
            ('            self._dispose_all_idle()  # they belong', '            # they belong'),
        ),
        ('a test_a_pool_can_be_used_in_one_asyncio_run_after_the_other',),
    ),
    Change(
        40,
        'a second event loop is not noticed',
        ASYNCIO + 'pool.py',
        (
            ('            if self._loop is not None and not self._loop.is_closed():', '            if False:'),
        ),
        ('a test_a_second_loop_while_the_first_is_open_gets_a_clear_error',),
    ),
    Change(
        40,
        'a release raises because of the closed loop of a waiter',
        ASYNCIO + 'waiter.py',
        (
            (
                '        except RuntimeError:  # the loop is closed',
                '        except ZeroDivisionError:  # the loop is closed',
            ),
        ),
        ('a test_a_release_hands_over_past_waiters_whose_loop_is_closed',),
    ),
    Change(
        41,
        'the clock is that of the day',
        PURE + 'lock.py',
        (
            ('monotonic = time.monotonic', 'monotonic = time.time'),
        ),
        ('c test_the_clock_is_the_monotonic_one',),
    ),
    Change(
        42,
        'an acquire waits for the disposal of what is in its way (threads)',
        THREADS + 'pool.py',
        (
            (
                '        if deadline is None:\n'
                '            self._dispose_victim(ticket, None)',
                '        if True:\n'
                '            self._dispose_victim(ticket, None)',
            ),
        ),
        ('t test_the_deadline_of_an_acquire_holds_although_the_disposal_of_what_is_in_its_way_hangs',),
    ),
    Change(
        42,
        'connections are disposed of under the lock',
        PURE + 'thread_pool.py',
        (
            (
                '            self._manager.dispose(record.key, record.conn, timeout=timeout)\n',
                '            with self._core.mutex.lock:\n'
                '                self._manager.dispose(record.key, record.conn, timeout=timeout)\n',
            ),
        ),
        ('t test_a_disposal_that_hangs_hinders_nobody_who_does_not_need_its_slot',),
    ),
    Change(
        42,
        'an acquire waits for a create that ignores its cancellation (asyncio)',
        ASYNCIO_HOOKS,
        (
            (
                '        adopt(task)\n'
                '        await let_finish((task,))\n'
                '        raise\n',
                '        await asyncio.wait((task,))\n'
                '        adopt(task)\n'
                '        raise\n',
            ),
            (
                '    task.cancel()\n'
                '    adopt(task)\n'
                '    await let_finish((task,))\n'
                '    raise DeadlinePassed',
                '    task.cancel()\n'
                '    await asyncio.wait((task,))\n'
                '    adopt(task)\n'
                '    raise DeadlinePassed',
            ),
        ),
        ('a test_a_create_that_ignores_its_cancellation_does_not_delay_the_caller',),
    ),
]

#: what cannot be put back in this way, and why
NOT_PUT_BACK = {
    8: 'not promised yet: a connect whose caller gives up is cancelled, or disposed of when it comes too late',
    22: 'not promised yet: there is no limit to the attempts below `max_size` at a time',
    31: 'not promised yet: there is no jitter',
    43: 'shown by a build on a free-threaded interpreter only, not by a change of the code in Python',
}
