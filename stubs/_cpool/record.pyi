from typing import Any

from typing_extensions import disjoint_base

__all__ = ('DISPOSING', 'GONE', 'IDLE_CORE', 'IDLE_EXTRA', 'INHERITED', 'LENT', 'RETURNING', 'Record')

IDLE_CORE: int
IDLE_EXTRA: int
LENT: int
RETURNING: int
DISPOSING: int
GONE: int
INHERITED: int

@disjoint_base
class Record:
    deadline: float
    sequence: int
    state: int
    def __init__(self, conn: Any, key: Any, created: float, expires: float) -> None: ...
    @property
    def conn(self) -> Any: ...
    @property
    def key(self) -> Any: ...
    @property
    def created(self) -> float: ...
    @property
    def expires(self) -> float: ...
    @property
    def heap_index(self) -> int: ...
    @property
    def uses(self) -> int: ...
    @property
    def holder(self) -> int: ...
    def claim(self) -> bool: ...
