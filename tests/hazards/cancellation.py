"""Hazards 1 to 11: cancellation, timeouts, interrupts."""

from .change import ASYNCIO, ASYNCIO_HOOKS, PACKAGE, PURE, THREADS, Change

CHANGES = [
    Change(
        1,
        'an acquire whose create fails keeps its slot (threads)',
        PURE + 'thread_pool.py',
        (
            ('                self._core.fail(ticket)\n', '                pass\n'),
        ),
        ('t test_after_an_error_of_create_the_next_waiter_creates',),
    ),
    Change(
        1,
        'an acquire that is cancelled during create keeps its slot (asyncio)',
        ASYNCIO + 'pool.py',
        (
            ('            core.fail(ticket)\n', '            pass\n'),
        ),
        ('a test_a_cancel_during_create_frees_the_slot_for_the_next',),
    ),
    Change(
        1,
        'the slot of a cancelled creation is lost when it ends',
        ASYNCIO + 'pool.py',
        (
            ('                self._core.fail(orphan)\n', '                pass\n'),
        ),
        ('a test_a_create_that_ignores_its_cancellation_and_fails_later_frees_its_slot',),
    ),
    Change(
        2,
        'a connection whose check or hook was interrupted stays in use (threads)',
        THREADS + 'pool.py',
        (
            (
                '        ticket.dirty = True\n'
                '        try:\n',
                '        ticket.dirty = False\n'
                '        try:\n',
            ),
        ),
        ('t test_after_a_timeout_or_an_interrupt_while_acquiring_the_connection_is_disposed_of',),
    ),
    Change(
        2,
        'a connection that was found dead, or prepared, stays in use if the acquire is interrupted right after that',
        THREADS + 'pool.py',
        (
            ('        return answer\n', '        ticket.dirty = False\n        return answer\n'),
        ),
        (
            't test_what_was_found_dead_is_not_found_alive_by_the_next_one',
            't test_what_was_prepared_for_a_user_is_cleaned_up_before_the_next_one',
        ),
    ),
    Change(
        2,
        'a connection whose check or hook was cancelled stays in use (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                '        ticket.dirty = True\n'
                '        try:\n',
                '        ticket.dirty = False\n'
                '        try:\n',
            ),
        ),
        ('a test_a_connection_whose_hook_was_cancelled_is_not_given_to_anyone_else',),
    ),
    Change(
        2,
        'a connection whose check or hook was cancelled is lost',
        ASYNCIO + 'pool.py',
        (
            (
                '                if core.discard(record):\n'
                '                    doomed.append(record)\n',
                '                pass\n',
            ),
        ),
        ('a test_a_connection_whose_hook_was_cancelled_is_not_given_to_anyone_else',),
    ),
    Change(
        3,
        'what was handed over to an acquire that fails is lost (threads)',
        PURE + 'thread_pool.py',
        (
            (
                '            elif ticket.state == CONNECTION:\n'
                '                record, ticket.record',
                '            elif False:\n'
                '                record, ticket.record',
            ),
        ),
        ('t test_an_error_while_acquiring_what_was_handed_over_passes_it_on_to_the_next_waiter',),
    ),
    Change(
        3,
        'what was handed over to an acquire that is cancelled is lost (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                '        elif ticket.state == CONNECTION:\n'
                '            record, ticket.record',
                '        elif False:\n'
                '            record, ticket.record',
            ),
        ),
        ('a test_a_cancel_after_the_hand_over_passes_the_connection_on',),
    ),
    Change(
        4,
        'who gives up waiting is not told that it has been served',
        PURE + 'core.py',
        (
            (
                '            return False\n'
                '        ticket.state = NOTHING\n',
                '            return ticket.endpoint is not None\n'
                '        ticket.state = NOTHING\n',
            ),
        ),
        ('c test_stopping_to_wait_comes_too_late_after_something_was_granted',),
    ),
    Change(
        4,
        'a timeout drops what was granted meanwhile (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                '                if not await waiter.wait(remaining(deadline)) and self._core.withdraw(ticket):\n',
                '                if not await waiter.wait(remaining(deadline)):\n'
                '                    if not self._core.withdraw(ticket):\n'
                '                        ticket.state, ticket.record = CLOSED, None\n',
            ),
        ),
        ('a test_a_connection_that_another_thread_hands_over_after_the_timer_has_fired_is_delivered',),
    ),
    Change(
        4,
        'a timeout drops what was granted meanwhile (threads)',
        THREADS + 'pool.py',
        (
            (
                '                if not ticket.wait(remaining(deadline)) and self._core.withdraw(ticket):\n',
                '                if not ticket.wait(remaining(deadline)):\n'
                '                    if not self._core.withdraw(ticket):\n'
                '                        ticket.state, ticket.record = CLOSED, None\n',
            ),
        ),
        ('t test_what_is_granted_at_any_moment_of_a_timeout_is_delivered_or_left',),
    ),
    Change(
        5,
        'a cancellation that meets the end of create is swallowed',
        ASYNCIO_HOOKS,
        (
            (
                '    except BaseException:\n'
                '        task.cancel()\n',
                '    except BaseException:\n'
                '        if task.done() and not task.cancelled():\n'
                '            return task.result()\n'
                '        task.cancel()\n',
            ),
        ),
        ('a test_a_cancel_that_meets_the_end_of_create_is_delivered_and_its_connection_is_not_lost',),
    ),
    Change(
        5,
        'a cancellation that meets the timeout is swallowed',
        ASYNCIO + 'waiter.py',
        (
            (
                '                    await future\n',
                '                    try:\n'
                '                        await future\n'
                '                    except asyncio.CancelledError:\n'
                '                        return self._woken\n',
            ),
        ),
        ('a test_a_cancel_that_meets_the_timeout_is_delivered',),
    ),
    Change(
        6,
        'an acquire that is cancelled keeps its place and what it is granted',
        ASYNCIO + 'pool.py',
        (
            (
                '        except BaseException as exc:\n'
                '            if is_being_closed',
                '        except Exception as exc:\n'
                '            if is_being_closed',
            ),
        ),
        ('a test_all_those_who_wait_may_be_cancelled_at_once',),
    ),
    Change(
        6,
        'who stops waiting stays in the queue',
        PURE + 'core.py',
        (
            (
                '        endpoint.waiters.remove(ticket)\n'
                '        self._settle(endpoint, woken)\n',
                '        self._settle(endpoint, woken)\n',
            ),
        ),
        ('c test_who_stops_waiting_is_not_served',),
    ),
    Change(
        7,
        'is_reusable is not asked (threads)',
        THREADS + 'pool.py',
        (
            ('            if not manager.is_reusable(endpoint, record.conn, exc):', '            if False:'),
        ),
        ('t test_a_connection_that_is_not_reusable_is_disposed_of_without_on_release',),
    ),
    Change(
        7,
        'is_reusable is not asked (asyncio)',
        ASYNCIO + 'pool.py',
        (
            ('            if not reusable:', '            if False:'),
        ),
        ('a test_a_connection_that_is_not_reusable_is_not_announced_as_released',),
    ),
    Change(
        7,
        'a stream is used again after any error',
        PACKAGE + 'contrib/socket_async.py',
        (
            (
                '    def is_reusable(self, endpoint: TcpStreamEndpoint, conn: Stream, exc: '
                'BaseException) -> bool:\n',
                '    def is_reusable(self, endpoint: TcpStreamEndpoint, conn: Stream, exc: '
                'BaseException) -> bool:\n'
                '        return True\n'
                '\n'
                '    def unused(self, endpoint: TcpStreamEndpoint, conn: Stream, exc: BaseException) -> bool:\n',
            ),
        ),
        ('m test_a_conversation_cut_short_by_a_cancellation_is_not_continued_by_the_next_user',),
    ),
    Change(
        9,
        'an acquire cleans up after an Exception only (threads)',
        PURE + 'thread_pool.py',
        (
            (
                '        except ReentryError:\n'
                '            raise\n'
                '        except BaseException:\n'
                '            self._abandon(ticket)',
                '        except ReentryError:\n'
                '            raise\n'
                '        except Exception:\n'
                '            self._abandon(ticket)',
            ),
        ),
        ('t test_after_a_timeout_or_an_interrupt_while_acquiring_the_connection_is_disposed_of',),
    ),
    Change(
        9,
        'a release cleans up after an Exception only (threads)',
        PURE + 'thread_pool.py',
        (
            (
                '                self._finish(record, exc)\n'
                '            except BaseException:',
                '                self._finish(record, exc)\n'
                '            except Exception:',
            ),
        ),
        ('t test_after_a_timeout_or_an_interrupt_in_on_release_the_connection_is_disposed_of',),
    ),
    Change(
        9,
        'an interrupted disposal keeps its slot (threads)',
        PURE + 'thread_pool.py',
        (
            (
                '        finally:\n'
                '            self._core.disposed(record, ticket)\n'
                '            self._end(record)',
                '        else:\n'
                '            self._core.disposed(record, ticket)\n'
                '            self._end(record)',
            ),
        ),
        ('t test_an_interrupt_in_dispose_propagates_and_frees_the_slot',),
    ),
    Change(
        9,
        'a release cleans up after an Exception only (asyncio)',
        ASYNCIO + 'pool.py',
        (
            (
                '            except BaseException:\n'
                '                if record.state == RETURNING:',
                '            except Exception:\n'
                '                if record.state == RETURNING:',
            ),
        ),
        ('a test_an_on_release_that_raises_leaves_the_connection_idle_or_else_unfit',),
    ),
    Change(
        10,
        'an exception within an operation, as from a signal handler, leaves the lock held',
        PURE + 'lock.py',
        (
            (
                '            with mutex.lock:\n'
                '                if mutex.busy:',
                '            if mutex.lock.acquire():\n'
                '                if mutex.busy:',
            ),
            (
                '                    mutex.busy = True\n'
                '                    return method(self, *args)\n',
                '                    mutex.busy = True\n'
                '                    answer = method(self, *args)\n'
                '                    mutex.lock.release()\n'
                '                    return answer\n',
            ),
        ),
        ('c test_an_operation_that_fails_leaves_the_mutex_free',),
    ),
    Change(
        10,
        'a thread that sleeps is deaf to signals',
        PURE + 'lock.py',
        (
            (
                '        while not self._lock.acquire(timeout=min(max(left, 0.0), LONGEST_WAIT)):\n',
                '        helper = threading.Event()\n'
                '\n'
                '        def sleep() -> None:\n'
                '            self._lock.acquire(timeout=-1 if timeout is None else max(left, 0.0)) '
                'and self._lock.release()\n'
                '            helper.set()\n'
                '\n'
                '        sleeper = threading.Thread(target=sleep)\n'
                '        sleeper.start()\n'
                '        old = signal.signal(signal.SIGALRM, signal.SIG_IGN)\n'
                '        sleeper.join()\n'
                '        signal.signal(signal.SIGALRM, old)\n'
                '        while not self._lock.acquire(timeout=min(max(left, 0.0), LONGEST_WAIT)):\n',
            ),
            (
                'import functools\n',
                'import functools\n'
                'import signal\n',
            ),
        ),
        ('c test_a_signal_is_served_at_once_and_its_exception_ends_the_sleep',),
    ),
    Change(
        11,
        'a coroutine that is closed while it waits stays in the queue',
        ASYNCIO + 'pool.py',
        (
            ('                self._surely(lambda: self._abandon(ticket))', '                pass'),
        ),
        ('a test_a_waiter_that_becomes_garbage_leaves_its_turn_to_the_next',),
    ),
    Change(
        11,
        'a coroutine that is closed awaits something because a hook has raised something else',
        ASYNCIO_HOOKS,
        (
            ('        exc = exc.__context__\n', '        exc = None\n'),
        ),
        (
            'a test_an_outer_block_awaits_nothing_though_a_hook_of_the_inner_one_has_raised',
            'a test_an_acquire_awaits_nothing_though_its_hook_has_raised',
        ),
    ),
    Change(
        11,
        'what is granted to a task of a closed event loop is lost',
        ASYNCIO + 'waiter.py',
        (
            ('                self._on_lost()', '                pass'),
        ),
        ('a test_a_release_hands_over_past_waiters_whose_loop_is_closed',),
    ),
]
