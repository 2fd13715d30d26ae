"""Connection managers that lack methods, are meant for the other runtime, or answer nonsense."""

import logging
import types
from typing import Any, Callable, Dict, List

import pytest
from fuzz.cases import JUNK, NoRepr, covers
from fuzz.harness import RUNTIMES, AsyncManager, Books, ThreadsManager, harness
from generic_connection_pool import asyncio as asyncio_pools
from generic_connection_pool import threading as threads_pools

POOLS: Dict[str, Any] = {'threads': threads_pools.ConnectionPool, 'asyncio': asyncio_pools.ConnectionPool}
MANAGERS: Dict[str, Any] = {'threads': ThreadsManager, 'asyncio': AsyncManager}
HOOKS = ('create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'on_connection_dead')

runtimes = pytest.mark.parametrize('runtime', RUNTIMES)


def other(runtime: str) -> str:
    return 'asyncio' if runtime == 'threads' else 'threads'


@runtimes
@covers('threading.ConnectionPool', 'asyncio.ConnectionPool')
def test_what_is_no_manager_is_refused_by_name(runtime: str) -> None:
    for value in JUNK:
        with pytest.raises(TypeError, match='connection_manager must be a connection manager') as caught:
            POOLS[runtime](value)
        assert 'lacks create, dispose' in str(caught.value) and len(str(caught.value)) < 300


@runtimes
def test_a_class_instead_of_an_instance_is_refused_by_name(runtime: str) -> None:
    with pytest.raises(TypeError, match='an instance of .*Manager, not the class'):
        POOLS[runtime](MANAGERS[runtime])


@runtimes
@pytest.mark.parametrize('hook', HOOKS)
@pytest.mark.parametrize('value', [None, 1, 'missing'])
def test_a_manager_that_lacks_a_method_is_refused_by_the_name_of_that(runtime: str, hook: str, value: Any) -> None:
    manager = MANAGERS[runtime](Books())
    methods = {name: getattr(manager, name) for name in HOOKS if name != hook or value != 'missing'}
    methods.update({hook: value} if value != 'missing' else {})
    with pytest.raises(TypeError, match=f'lacks {hook}$'):
        POOLS[runtime](types.SimpleNamespace(**methods))


@runtimes
def test_a_manager_that_derives_from_nothing_may_lack_what_came_after_its_time(runtime: str) -> None:
    with harness(runtime) as pool:
        inner = pool.pool._connection_manager
        duck = types.SimpleNamespace(**{name: getattr(inner, name) for name in HOOKS})
        pool.close()
        pool.pool = POOLS[runtime](duck)
        with pytest.raises(KeyError), pool.connection('a'):
            raise KeyError
        assert pool.size('a', False) == 1


@runtimes
def test_a_manager_of_the_other_runtime_is_refused_and_nothing_is_left_unawaited(runtime: str) -> None:
    with pytest.raises(TypeError, match=f'must be one for {runtime}'):
        POOLS[runtime](MANAGERS[other(runtime)](Books()))


def test_a_coroutine_is_no_connection_of_a_threads_pool_and_is_closed() -> None:
    coroutines: List[Any] = []

    async def connect() -> None: ...

    def create(endpoint: Any) -> Any:
        coroutines.append(connect())
        return coroutines[-1]

    books = Books(create=create)
    with harness('threads', books) as pool:
        with pytest.raises(TypeError, match='create.* returned a coroutine'):
            pool.acquire('a')
        assert pool.pool.get_size() == 0 and coroutines[0].cr_frame is None
        books.created.clear()


@pytest.mark.parametrize('hook', HOOKS)
def test_a_plain_hook_of_an_asyncio_manager_is_an_error_that_names_it(hook: str, caplog: Any) -> None:
    books = Books(check_aliveness=lambda endpoint, conn: hook != 'on_connection_dead')
    with harness('asyncio', books) as pool:
        inner = pool.pool._connection_manager
        calls = []

        def plain(*args: Any) -> Any:
            calls.append(args)
            return getattr(books, 'answer', 1)

        pool.close()
        methods = {name: getattr(inner, name) for name in HOOKS}
        pool.pool = POOLS['asyncio'](types.SimpleNamespace(**{**methods, hook: plain}))
        with caplog.at_level(logging.ERROR):
            for _ in range(2):
                try:
                    with pool.connection('a'):
                        pass
                except TypeError as exc:
                    assert 'plain must be a coroutine function, but returned <int object' in str(exc)
                    break
            else:
                assert hook == 'dispose'
            pool.close()
        assert calls
        if hook == 'dispose':
            assert 'plain must be a coroutine function' in caplog.text
            books.created.clear()
            assert pool.pool.get_size() == 0


@runtimes
def test_none_is_a_connection_like_any_other(runtime: str) -> None:
    with harness(runtime, Books(create=lambda endpoint: None), max_size=2) as pool:
        assert pool.acquire('a') is None and pool.acquire('a') is None
        assert pool.size('a', True) == 2
        with pytest.raises(RuntimeError, match='NoneType'):
            pool.give_back(None, 'b')
        pool.release()
        assert (pool.size('a', True), pool.size('a', False)) == (1, 1)
        pool.release()
        with pytest.raises(RuntimeError, match='is not acquired'):
            pool.give_back(None, 'a')
        with pool.connection('a') as conn:
            assert conn is None
        pool.check()


@runtimes
def test_one_object_that_is_created_again_and_again_counts_each_time(runtime: str) -> None:
    conn = object()
    books = Books(create=lambda endpoint: conn)
    with harness(runtime, books, max_size=2) as pool, harness(runtime, Books(create=books.doing['create'])) as second:
        for endpoint in ('a', 'a', 'b'):
            assert pool.acquire(endpoint) is conn
        second.acquire('a')
        assert (pool.size('a', True), pool.size('b', True), second.size('a', True)) == (2, 1, 1)
        with pytest.raises(RuntimeError, match="endpoint 'c'"):
            pool.give_back(conn, 'c')
        pool.release(2)
        with pytest.raises(RuntimeError, match="endpoint 'b'"):
            pool.give_back(conn, 'b')
        assert (pool.size('a', True), pool.size('b', False), second.size('a', True)) == (2, 1, 1)
        pool.check()
        second.check()


class Moody:
    """Whether it is true, it does not want to say."""

    def __bool__(self) -> bool:
        raise ArithmeticError


@runtimes
def test_a_check_may_answer_anything_that_is_true_or_false(runtime: str) -> None:
    answers: List[Any] = []
    books = Books(check_aliveness=lambda *args: answers[-1], on_connection_dead=lambda *args: None)
    with harness(runtime, books, max_size=1) as pool:
        former = pool.acquire('a')
        for answer in JUNK:
            answers.append(answer)
            pool.release()
            conn = pool.acquire('a', None)
            assert (conn is former) == bool(answer)
            former = conn
            pool.check()
        pool.release()
        answers.append(Moody())
        with pytest.raises(ArithmeticError):
            pool.acquire('a', None)
        assert pool.size('a', False) == 1


@runtimes
def test_is_reusable_may_answer_anything_that_is_true_or_false(runtime: str) -> None:
    answers: List[Any] = []
    with harness(runtime, Books(is_reusable=lambda *args: answers[-1])) as pool:
        for answer in [*JUNK, Moody()]:
            answers.append(answer)
            with pytest.raises(ArithmeticError if isinstance(answer, Moody) else KeyError), pool.connection('a'):
                raise KeyError
            pool.check()
            assert pool.size('a') == (not isinstance(answer, Moody) and bool(answer))


ERRORS: List[Callable[[], BaseException]] = [KeyError, RecursionError, MemoryError, SystemExit, TimeoutError]


@runtimes
@pytest.mark.parametrize('hook', [*HOOKS, 'is_reusable'])
def test_a_hook_may_raise_anything_and_no_slot_is_lost(runtime: str, hook: str) -> None:
    for error in ERRORS:
        if error is not SystemExit or runtime == 'threads':  # it would end the event loop
            check_failing_hook(runtime, hook, error)


def check_failing_hook(runtime: str, hook: str, error: Any) -> None:
    armed: List[str] = []

    def fail(*args: Any) -> Any:
        if armed:
            armed.clear()
            raise error('what the hook raised')
        return object() if hook == 'create' else hook != 'check_aliveness'

    doing = {hook: fail, **({'check_aliveness': lambda *args: False} if hook == 'on_connection_dead' else {})}
    with harness(runtime, Books(**doing), total_max_size=2) as pool:
        for _ in range(3):
            armed.append(hook)
            try:
                with pool.connection('a', None):
                    raise ZeroDivisionError
            except (error, ZeroDivisionError):
                pass
            pool.check()
            armed.clear()


@runtimes
def test_the_repr_of_a_manager_is_never_asked_for(runtime: str) -> None:
    Shy: Any = type('Shy', (NoRepr, MANAGERS[runtime]), {})

    with pytest.raises(TypeError, match='Shy object at'):
        POOLS[other(runtime)](Shy(Books()))
    with harness(runtime) as pool:
        pool.close()
        pool.pool = POOLS[runtime](Shy(pool.books))
        assert 'ConnectionPool' in repr(pool.pool)
