"""Threads pools whose process forks, and what is to be seen of them in the child."""

from typing import Any, List

from support.threads import HookedManager, is_free

__all__ = ('Watched', 'used', 'works')


class Watched(HookedManager):
    """Notes what is left to the parent."""

    def __init__(self) -> None:
        super().__init__()
        self.left: List[Any] = []

    def on_fork(self, endpoint: Any, conn: Any) -> None:
        self.left.append((endpoint, str(conn)))


def used(pool: Any, *endpoints: str) -> Any:
    for endpoint in endpoints:
        with pool.connection(endpoint):
            pass
    return pool


def works(pool: Any) -> bool:
    """The pool of a child is as good as new."""
    assert pool.get_size() == 0 and not pool.is_full
    assert [pool._core.waiting(endpoint) for endpoint in 'ab'] == [0, 0]
    pool._core.check_invariants()
    before = len(pool._connection_manager.created)
    assert is_free(pool, 'a') and is_free(pool, 'b')
    with pool.connection('a', timeout=5) as conn:
        assert conn in pool._connection_manager.created[before:]
    pool._core.check_invariants()
    return True
