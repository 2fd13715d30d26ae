"""Coroutines that are closed, as the garbage collector does, while a hook makes something else of their GeneratorExit."""

import asyncio
from typing import Any, List, Type

import pytest
from support.tasks import GENEROUS, Manager, OpenPool, passes, until

each_error = pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt], ids=lambda error: error.__name__)


async def wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


@each_error
async def test_an_outer_block_awaits_nothing_though_a_hook_of_the_inner_one_has_raised(
    open_pool: OpenPool, error: Type[BaseException]
) -> None:
    """Hazards 9 and 11. Otherwise the coroutine would be said to ignore GeneratorExit, and go on for ever."""

    def judge(endpoint: str, *args: Any) -> bool:
        if endpoint == 'inner':
            raise error()
        return True

    manager = Manager(is_reusable=judge, on_release=lambda *args: passes())
    pool = open_pool(manager)
    held: List[Any] = []

    async def nested() -> None:
        async with pool.connection('outer') as outer:
            async with pool.connection('inner') as inner:
                held.extend((outer, inner))
                await wait_for_ever()

    async with pool.connection('outer'), pool.connection('inner'):
        pass  # so that both are idle
    coro = nested()
    coro.send(None)
    with pytest.raises(error):
        coro.close()
    await until(lambda: pool.get_size() == 0)
    assert len(held) == 2 and set(manager.disposed) == set(held)


@each_error
@pytest.mark.parametrize('hook', ['create', 'check_aliveness', 'on_acquire'])
async def test_an_acquire_awaits_nothing_though_its_hook_has_raised(
    open_pool: OpenPool, error: Type[BaseException], hook: str
) -> None:
    """Hazards 9 and 11."""
    stuck: List[bool] = []

    async def behave(*args: Any) -> Any:
        if stuck:
            try:
                await wait_for_ever()
            except GeneratorExit:
                raise error() from None
        return None if hook == 'create' else True

    # so that giving up what it holds takes some time
    manager = Manager(**{hook: behave, 'dispose': lambda *args: passes()})
    pool = open_pool(manager, max_size=1, max_lifetime=3600.0)
    if hook != 'create':
        async with pool.connection('a'):
            pass
    stuck.append(True)
    coro = pool.acquire('a')
    coro.send(None)
    with pytest.raises(error):
        coro.close()
    stuck.clear()
    async with pool.connection('a', timeout=GENEROUS):
        assert pool.get_size() == 1
