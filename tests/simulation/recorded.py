"""The runs that failed once, of all flavours. Each is run again by every run of the tests."""

import pathlib
from typing import List, NamedTuple, Optional

from simulation.choices import Choices

__all__ = ('Run', 'recorded_runs')

SEEDS = pathlib.Path(__file__).parent / 'seeds'


class Run(NamedTuple):
    """A run that failed once."""

    #: which core it failed with: ``cython`` or ``python``; it is run with both
    core: str
    seed: int
    #: the decisions, if not those of the seed
    script: Optional[List[int]]
    why: str

    def choices(self) -> Choices:
        """Make the decisions of this run."""
        return Choices(self.seed, self.script)


def recorded_runs(flavour: str) -> List[Run]:
    """Read ``seeds/<flavour>.txt``.

    A line is ``core seed why`` or ``core d1,d2,... why`` (a list of decisions; a comma makes it one). Empty lines, and
    those that begin with ``#``, do not count.
    """
    runs = []
    for line in (SEEDS / f'{flavour}.txt').read_text(encoding='utf-8').splitlines():
        if line.strip() and not line.startswith('#'):
            core, decisions, why = line.split(None, 2)
            if core not in ('cython', 'python'):
                raise ValueError(f'seeds/{flavour}.txt: no such core: {line!r}')
            script = [int(decision) for decision in decisions.split(',') if decision] if ',' in decisions else None
            runs.append(Run(core, 0 if script is not None else int(decisions), script, why))
    return runs
