"""Hazards 23 to 27: closing."""

from .change import ASYNCIO, PURE, THREADS, Change

CHANGES = [
    Change(
        23,
        'what is created while the pool closes stays open',
        PURE + 'core.py',
        (
            (
                '        if self.closed:\n'
                '            record.state = DISPOSING\n'
                '            ticket.state = CLOSED\n'
                '            return False\n',
                '',
            ),
        ),
        ('c test_who_has_got_a_slot_before_keeps_it_but_its_connection_is_to_be_disposed_of',),
    ),
    Change(
        23,
        'who creates while the pool closes is not told (threads)',
        THREADS + 'pool.py',
        (
            ('        if self._core.closed:  # nobody is served after that\n', '        if False:\n'),
            (
                '                if not self._connect(ticket, endpoint, remaining(deadline)):\n'
                '                    self._refuse_closed()\n',
                '                self._connect(ticket, endpoint, remaining(deadline))\n',
            ),
        ),
        ('t test_what_is_created_while_close_begins_is_disposed_of_and_its_caller_told',),
    ),
    Change(
        23,
        'what is created while the pool closes is not disposed of (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                '            assert ticket.record is not None\n'
                '            self._dispose(ticket.record)\n'
                '            self._refuse_closed()',
                '            self._refuse_closed()',
            ),
        ),
        ('a test_the_result_of_a_create_that_close_overtakes_is_disposed_of',),
    ),
    Change(
        24,
        'a release after close by force raises (threads)',
        PURE + 'thread_pool.py',
        (
            ('        if not self._core.forced', '        if True or not self._core.forced'),
        ),
        ('t test_a_connection_closed_by_force_is_forgotten_when_it_is_released',),
    ),
    Change(
        24,
        'a release after close by force raises (asyncio)',
        PURE + 'async_pool.py',
        (
            ('        if not self._core.forced', '        if True or not self._core.forced'),
        ),
        ('a test_a_connection_closed_by_force_is_forgotten_when_it_is_released',),
    ),
    Change(
        24,
        'a release whose connection was closed by force meanwhile raises',
        PURE + 'core.py',
        (
            ('        if not self.forced', '        if True or not self.forced'),
        ),
        ('c test_releasing_a_connection_that_was_closed_by_force_is_nobodys_error',),
    ),
    Change(
        25,
        'close waits for disposals that hang (threads)',
        THREADS + 'pool.py',
        (
            (
                '        if deadline is None:\n'
                '            while dispose_one(None):',
                '        if True:\n'
                '            while dispose_one(None):',
            ),
        ),
        ('t test_close_keeps_its_bound_with_a_disposal_that_hangs_and_disposes_of_the_others',),
    ),
    Change(
        25,
        'close waits for ever (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                '                if not await waiter.wait(remaining(deadline)):\n'
                '                    return self._core',
                '                if not await waiter.wait(None):\n'
                '                    return self._core',
            ),
        ),
        (
            'a test_close_with_a_timeout_holds_it_though_a_disposal_hangs',
            'a test_close_with_a_timeout_holds_it_though_a_create_hangs',
        ),
    ),
    Change(
        25,
        'close spins while it waits (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                '                if not await waiter.wait(remaining(deadline)):\n'
                '                    return self._core',
                '                await asyncio.sleep(0)\n'
                '                if deadline is not None and monotonic() > deadline:\n'
                '                    return self._core',
            ),
        ),
        ('a test_close_is_asleep_while_it_waits',),
    ),
    Change(
        26,
        'close in a hook waits for its own slot',
        PURE + 'closing.py',
        (
            ('        if self.total <= (self._excused + excused if excused else 0):', '        if self.total <= 0:'),
            ('        return self.total <= (self._excused if excused else 0)', '        return self.total <= 0'),
        ),
        ('c test_a_closer_does_not_wait_for_its_own_slots',),
    ),
    Change(
        26,
        'a close that was interrupted cannot be repeated (threads)',
        THREADS + 'pool.py',
        (
            (
                '        if not self._begin_close(lambda: self.close(timeout)):',
                '        if self.closed or not self._begin_close(lambda: self.close(timeout)):',
            ),
        ),
        ('t test_while_the_pool_is_closed_which_can_be_done_again',),
    ),
    Change(
        26,
        'a close that was cancelled cannot be repeated (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                '        self._core.close()\n'
                '        self._settle_in',
                '        if self.closed:\n'
                '            return\n'
                '        self._core.close()\n'
                '        self._settle_in',
            ),
        ),
        ('a test_a_cancelled_close_can_be_called_again',),
    ),
    Change(
        27,
        'what a dispose raises ends the collector (threads)',
        THREADS + 'collector.py',
        (
            ('        except BaseException:  # a hook', '        except Exception:  # a hook'),
        ),
        ('t test_it_survives_a_dispose_that_fails',),
    ),
    Change(
        27,
        'a failed dispose of the collector keeps its slot (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                '        finally:\n'
                '            self._surely(lambda: self._core.disposed(record))',
                '        except ZeroDivisionError:\n'
                '            pass\n'
                '        else:\n'
                '            self._surely(lambda: self._core.disposed(record))',
            ),
        ),
        ('a test_it_survives_a_dispose_that_fails',),
    ),
    Change(
        27,
        'the collector does not sleep (threads)',
        THREADS + 'collector.py',
        (
            (
                '            delay = pool._dispose_all_due(ticket)\n',
                '            pool._dispose_all_due(ticket)\n'
                '            delay = 0.0\n',
            ),
        ),
        ('t test_it_sleeps_while_nothing_is_due',),
    ),
    Change(
        27,
        'the collector does not sleep (asyncio)',
        ASYNCIO + 'collector.py',
        (
            (
                '            delay = pool._dispose_all_due(ticket)\n',
                '            pool._dispose_all_due(ticket)\n'
                '            delay = 0.001\n',
            ),
        ),
        ('a test_it_sleeps_while_nothing_is_due',),
    ),
]
