"""Where all chance of a simulation comes from: a seed, or a list of decisions to be made again."""

import collections
import random
from typing import Counter, List, Optional, Sequence, TypeVar

__all__ = ('Choices',)

T = TypeVar('T')


class Choices:
    """Makes decisions, and writes them down: a run with ``script=made`` of another one is the same run.

    :param seed: where the decisions come from
    :param script: the decisions themselves, if given: each is reduced to the range asked for; after the last, all are 0
    """

    def __init__(self, seed: int, script: Optional[Sequence[int]] = None):
        self.seed = seed
        #: all decisions made so far; those between one possibility are none
        self.made: List[int] = []
        #: if it is a list, the simulation tells it what happens, a line for each step
        self.trace: Optional[List[str]] = None
        #: what happened how often in this run, for those who want to know whether a simulation gets anywhere
        self.tally: Counter[str] = collections.Counter()
        self._random = random.Random(seed).random
        self._script = None if script is None else iter(script)

    def below(self, n: int) -> int:
        """Decide on a number from 0 to ``n - 1``."""
        if n <= 1:
            return 0
        if self._script is None:
            decision = int(self._random() * n)
        else:
            decision = next(self._script, 0) % n
        self.made.append(decision)
        return decision

    def chance(self, one_in: int) -> bool:
        """Decide on whether something happens that happens once in ``one_in`` times; a script of zeros says no."""
        return self.below(one_in) == one_in - 1

    def pick(self, sequence: Sequence[T]) -> T:
        """Decide on an item; by a script of zeros, on the first: put the most harmless first."""
        return sequence[self.below(len(sequence))]
