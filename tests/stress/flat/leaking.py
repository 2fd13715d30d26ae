"""Stages that leak on purpose, one operation in fifty: each is called what of it is to be noticed."""

import ctypes
import os
import sys
from typing import Any, Callable, Dict, Iterator, List, Tuple

from measuring import ENDPOINTS

kept: List[Any] = []


def leaking(leak: Callable[[], Any]) -> 'Tuple[Callable[[int], Iterator[None]], int]':
    def stage(count: int) -> Iterator[None]:
        while True:
            for _ in range(count // 50):
                kept.append(leak())
            yield

    return stage, 1


def lose_memory() -> None:
    ctypes.pythonapi.PyMem_RawMalloc(4096)


STAGES: 'Dict[str, Tuple[Callable[[int], Iterator[None]], int]]' = {
    'objects': leaking(list),
    'references': leaking(lambda: ENDPOINTS[0]),
    'descriptors': leaking(lambda: os.open(os.devnull, os.O_RDONLY)),
    'blocks': leaking(lambda: [object() for _ in range(20)]),
}
if sys.platform == 'linux':
    STAGES['heap'] = leaking(lose_memory)
    STAGES['resident'] = leaking(lambda: b'x' * 16384)
