"""Hazards 28 to 36: connections."""

from .change import ASYNCIO, PACKAGE, PURE, THREADS, Change

CHANGES = [
    Change(
        28,
        'a dead connection is dropped without being closed (threads)',
        THREADS + 'pool.py',
        (
            (
                '            self._dispose_victim(ticket, None)\n',
                '            self._core.disposed(ticket.take_victim(), ticket)\n',
            ),
        ),
        ('t test_a_dead_connection_is_reported_disposed_of_and_replaced_within_the_same_acquire',),
    ),
    Change(
        28,
        'a dead connection is dropped without being closed (asyncio)',
        ASYNCIO + 'pool.py',
        (
            ('                self._dispose(victim)\n', '                self._core.disposed(victim)\n'),
        ),
        ('a test_a_dead_connection_is_disposed_of_after_it_was_reported',),
    ),
    Change(
        29,
        'a connection that is being closed does not count (threads)',
        PURE + 'thread_pool.py',
        (
            (
                '        self._begin(record)\n'
                '        try:\n'
                '            self._manager.dispose(',
                '        self._begin(record)\n'
                '        self._core.disposed(record, ticket)\n'
                '        try:\n'
                '            self._manager.dispose(',
            ),
            (
                '            self._core.disposed(record, ticket)\n'
                '            self._end(record)',
                '            self._end(record)',
            ),
        ),
        ('t test_a_connection_counts_until_its_disposal_has_finished',),
    ),
    Change(
        29,
        'a connection that is being closed does not count (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                '        self._doomed.pop(record, None)\n'
                '        try:\n',
                '        self._doomed.pop(record, None)\n'
                '        self._core.disposed(record)\n'
                '        try:\n',
            ),
            ('            self._surely(lambda: self._core.disposed(record))\n', '            pass\n'),
        ),
        ('a test_an_evicted_connection_counts_until_its_disposal_has_finished',),
    ),
    Change(
        30,
        'an expired connection is handed out',
        PURE + 'deque.py',
        (
            (
                '        record = self.core.head\n'
                '        while record is not None:\n'
                '            if record.deadline > now:',
                '        record = self.core.head\n'
                '        while record is not None:\n'
                '            if True:',
            ),
        ),
        (
            't test_a_connection_past_its_time_is_never_handed_out',
            'c test_an_idle_connection_is_not_handed_out_when_its_lifetime_is_over',
        ),
    ),
    Change(
        30,
        'a busy connection is never replaced',
        PURE + 'policy.py',
        (
            ('        if self.closed or record.expires <= now:', '        if self.closed:'),
        ),
        ('a test_a_busy_connection_is_recycled_at_release_when_its_lifetime_is_over',),
    ),
    Change(
        32,
        'what is being disposed of can still be taken',
        PURE + 'policy.py',
        (
            (
                '        record.endpoint.idle.remove(record)\n'
                '        self._doom(record, record.endpoint)\n',
                '        self._doom(record, record.endpoint)\n',
            ),
        ),
        ('c test_what_is_being_disposed_of_is_not_due_again', 't test_it_and_the_releases_of_many_threads_get_along'),
    ),
    Change(
        32,
        'what is handed out can still be disposed of',
        PURE + 'policy.py',
        (
            (
                '        record.state = LENT\n'
                '        record.uses += 1\n',
                '        record.uses += 1\n',
            ),
        ),
        (
            'c test_a_connection_in_use_is_not_due',
            'c test_on_long_random_walks_both_implementations_answer_alike_and_keep_every_promise',
        ),
    ),
    Change(
        33,
        'a reset that was interrupted by its timeout returns a connection (threads)',
        THREADS + 'pool.py',
        (
            (
                '                manager.on_release(endpoint, record.conn)\n'
                '            except TimeoutError:\n'
                '                raise\n',
                '                manager.on_release(endpoint, record.conn)\n',
            ),
        ),
        ('t test_after_a_timeout_or_an_interrupt_in_on_release_the_connection_is_disposed_of',),
    ),
    Change(
        33,
        'a reset that was interrupted by its timeout returns a connection (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                'on_release, endpoint, record.conn)\n'
                '            except TIMEOUTS:\n'
                '                raise\n',
                'on_release, endpoint, record.conn)\n',
            ),
        ),
        ('a test_an_on_release_that_raises_leaves_the_connection_idle_or_else_unfit',),
    ),
    Change(
        33,
        'a rollback that was cancelled returns a connection',
        PACKAGE + 'contrib/asyncpg.py',
        (
            (
                '    except BaseException:\n'
                '        conn.terminate()\n'
                '        raise\n',
                '    except BaseException:\n'
                '        raise\n',
            ),
        ),
        ('m test_a_rollback_that_is_cancelled_closes_the_connection',),
    ),
    Change(
        34,
        'a connection can be given back twice',
        PURE + 'core.py',
        (
            ('record.state != LENT or record.uses != loan', 'record.state == GONE'),
        ),
        (
            't test_a_block_can_tell_that_its_connection_was_released_and_lent_again',
            'c test_a_stale_loan_cannot_end_a_later_one_of_the_same_connection',
        ),
    ),
    Change(
        34,
        'a release is not refused before its hooks run',
        PURE + 'thread_pool.py',
        (
            (
                '                self._refuse(conn, endpoint)\n'
                '            else:',
                '                self._manager.on_release(endpoint, conn)\n'
                '                self._refuse(conn, endpoint)\n'
                '            else:',
            ),
        ),
        ('t test_a_second_release_is_refused_before_any_hook_runs',),
    ),
    Change(
        34,
        'an earlier loan can end a later one',
        PURE + 'core.py',
        (
            ('record.state != LENT or record.uses != loan', 'record.state != LENT'),
        ),
        (
            'c test_a_stale_loan_cannot_end_a_later_one_of_the_same_connection',
            't test_a_block_can_tell_that_its_connection_was_released_and_lent_again',
        ),
    ),
    Change(
        35,
        'connections are found by equality',
        PURE + 'store.py',
        (
            ('        same = self._lent_as(conn)\n', '        same: List[Record] = []\n'),
        ),
        ('t test_connections_that_are_equal_are_told_apart', 'a test_connections_are_told_apart_by_identity'),
    ),
    Change(
        35,
        'an __eq__ that raises breaks a release',
        PURE + 'store.py',
        (
            ('    except Exception:  # connections are told', '    except ZeroDivisionError:  # connections are told'),
        ),
        ('c test_a_connection_whose_comparison_fails_is_no_others_equal',),
    ),
    Change(
        36,
        'an endpoint without connections is kept for ever',
        PURE + 'policy.py',
        (
            ('        if not endpoint.removed and endpoint.unused:', '        if False:'),
        ),
        (
            't test_an_entry_goes_when_create_has_only_ever_failed',
            'a test_an_endpoint_without_connections_leaves_nothing_behind',
        ),
    ),
    Change(
        36,
        'an endpoint is removed between look-up and use',
        PURE + 'core.py',
        (
            ('        if endpoint.removed or (endpoint not in bucket and', '        if (endpoint not in bucket and'),
        ),
        ('c test_an_endpoint_that_disappears_while_keys_are_compared_is_made_anew',),
    ),
]
