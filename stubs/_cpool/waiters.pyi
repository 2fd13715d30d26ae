from typing import Any, Callable

from typing_extensions import disjoint_base

from .record import Record

__all__ = ('CLOSED', 'CONNECTION', 'NOTHING', 'SLOT', 'WAITING', 'Ticket')

NOTHING: int
WAITING: int
CONNECTION: int
SLOT: int
CLOSED: int

@disjoint_base
class Ticket:
    record: Record | None
    dirty: bool
    def __init__(self, holder: int = 0, notify: Callable[[], Any] | None = None) -> None: ...
    @property
    def notify(self) -> Callable[[], Any] | None: ...
    @property
    def holder(self) -> int: ...
    @property
    def state(self) -> int: ...
    @property
    def victim(self) -> Record | None: ...
    @property
    def on_duty(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def wake(self) -> None: ...
    def take_victim(self) -> Record | None: ...
