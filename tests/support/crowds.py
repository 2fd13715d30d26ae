"""Many users of one pool of few connections, each of whose answers is compared with its question."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Awaitable, Callable, Tuple, TypeVar

__all__ = ('crowd_of_tasks', 'crowd_of_threads')

AnswerT = TypeVar('AnswerT')


def crowd_of_threads(
    ask: Callable[[str], Tuple[AnswerT, AnswerT]], threads: int = 50, questions: int = 10
) -> None:
    """Have threads ask all at once.

    :param ask: given a question that nobody else asks, acquires a connection, asks, and returns what the answer has to
        be and what it was
    :param threads: how many there are
    :param questions: how many each of them asks, one after the other
    """
    together = threading.Barrier(threads)

    def use(user: int) -> int:
        together.wait()
        for number in range(questions):
            expected, answer = ask(f'user-{user}-question-{number}')
            assert answer == expected
        return questions

    with ThreadPoolExecutor(threads) as executor:
        assert sum(executor.map(use, range(threads))) == threads * questions


async def crowd_of_tasks(
    ask: Callable[[str], Awaitable[Tuple[AnswerT, AnswerT]]], tasks: int = 200, questions: int = 3
) -> None:
    """Have tasks ask all at once: like :func:`crowd_of_threads`."""

    async def use(user: int) -> int:
        for number in range(questions):
            expected, answer = await ask(f'user-{user}-question-{number}')
            assert answer == expected
        return questions

    assert sum(await asyncio.gather(*map(use, range(tasks)))) == tasks * questions
