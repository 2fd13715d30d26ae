"""Many threads, endpoints, failing and slow hooks, timeouts; then silence, and everything must add up."""

import contextlib
import random
import threading
import time
from typing import Any

import pytest
from generic_connection_pool.threading import ConnectionPool
from support.threads import HookedManager, Manager, finish, result, start, wait_until

SECONDS = 1.2


class Failure(Exception):
    pass


class Chaotic(HookedManager):
    """Its hooks fail, linger or find connections dead now and then."""

    calm = False

    def _called(self, hook: str, *args: Any, **kwargs: Any) -> Any:
        super()._called(hook, *args, **kwargs)
        dice = random.random()
        if self.calm:
            return None
        if dice < 0.02:
            raise random.choice([Failure, TimeoutError])
        if dice < 0.04:
            time.sleep(0.001)
        return False if dice < 0.1 and hook in ('check_aliveness', 'is_reusable') else None


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('collector', [False, True])
@pytest.mark.parametrize('kind', [Manager, Chaotic])
def test_chaos_leaves_nothing_behind(kind: Any, collector: bool, caplog: Any) -> None:
    caplog.set_level('CRITICAL')
    manager = kind()
    pool: Any = ConnectionPool(
        manager, background_collector=collector, max_size=3, total_max_size=7, min_idle=1, idle_timeout=0.005,
        max_lifetime=0.05,
    )  # fmt: skip
    finished = threading.Event()

    def work(seed: int) -> int:
        dice = random.Random(seed)
        turns = 0
        while not finished.is_set():
            with contextlib.suppress(Failure, TimeoutError, ZeroDivisionError):
                with pool.connection(dice.choice('abcd'), dice.choice([None, 0, 0.002, 20])):
                    turns += 1
                    if dice.random() < 0.05:
                        raise ZeroDivisionError
                    if dice.random() < 0.1:
                        time.sleep(0.001)
        return turns

    workers = [start(work, seed) for seed in range(12)]
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        pool._core.check_invariants()
        time.sleep(0.01)
    finished.set()
    turns = [result(worker) for worker in workers]
    manager.calm = True
    assert min(turns) > 0 and sum(map(pool._core.waiting, 'abcd')) == 0
    wait_until(lambda: not any(pool.get_endpoint_pool_size(endpoint, acquired=True) for endpoint in 'abcd'))
    finish(pool)
