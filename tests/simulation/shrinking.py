"""Makes a failing run as short as possible, so that somebody can read it."""

import time
from typing import Callable, List, Sequence

__all__ = ('shrink',)


def shrink(fails: Callable[[List[int]], bool], made: Sequence[int], seconds: float = 60.0) -> List[int]:
    """Look for the smallest list of decisions that still fails.

    A decision beyond the end of the list is 0, and 0 is the most harmless one; so shorter is simpler, and so is lower.

    :param fails: makes a run with a list of decisions and tells whether it fails (in the same way)
    :param made: the decisions of a run that fails
    :param seconds: how long to look at the most
    :return: a list that fails, none longer than ``made``
    """
    search = _Search(fails, made, time.monotonic() + seconds)
    while search.pass_over():
        pass
    return search.best


class _Search:
    def __init__(self, fails: Callable[[List[int]], bool], made: Sequence[int], deadline: float):
        self.fails = fails
        self.best = _without_tail(made)
        self.deadline = deadline

    def pass_over(self) -> bool:
        """Try everything once. Returns whether something has become simpler and there is time for more."""
        before = list(self.best)
        self.cut_the_end()
        self.clear_chunks()
        self.lower_each()
        return self.best != before and not self.is_over()

    def is_over(self) -> bool:
        return time.monotonic() > self.deadline

    def try_out(self, candidate: Sequence[int]) -> bool:
        shorter = _without_tail(candidate)
        if (len(shorter), shorter) >= (len(self.best), self.best) or self.is_over() or not self.fails(list(shorter)):
            return False
        self.best = shorter
        return True

    def cut_the_end(self) -> None:
        keep = len(self.best) // 2
        while keep < len(self.best):
            if not self.try_out(self.best[:keep]):
                keep += max((len(self.best) - keep) // 2, 1)

    def clear_chunks(self) -> None:
        size = max(len(self.best) // 2, 1)
        while size and not self.is_over():
            end = len(self.best)
            while end > 0 and not self.is_over():  # from the end: what comes later depends on what comes before
                start = max(end - size, 0)
                before, after = self.best[:start], self.best[end:]
                self.try_out(before + after) or self.try_out(before + [0] * (end - start) + after)
                end = min(start, len(self.best))
            size //= 2

    def lower_each(self) -> None:
        index = 0
        while index < len(self.best) and not self.is_over():
            value = self.best[index]
            for lower in sorted({0, 1, value // 2, value - 1}):
                if 0 <= lower < value and self.try_out([*self.best[:index], lower, *self.best[index + 1 :]]):
                    break
            index += 1


def _without_tail(made: Sequence[int]) -> List[int]:
    length = len(made)
    while length and made[length - 1] == 0:
        length -= 1
    return list(made[:length])
