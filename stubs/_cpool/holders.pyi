import asyncio
from typing import Any

__all__ = ('current_holder', 'holder_of')

def current_holder() -> int: ...
def holder_of(task: asyncio.Task[Any]) -> int: ...
