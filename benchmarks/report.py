"""The lines of the report, and the table."""

from typing import Any, Dict, NamedTuple, Optional, Sequence

TITLES = ('what', 'measured', 'reference', '', 'ratio', 'target', 'reached')
#: the columns that are aligned to the left
TEXTS = (0, 3, 6)


class Line(NamedTuple):
    """Something measured, compared with something else."""

    what: str
    #: ``None`` if it could not be measured; so for the reference
    measured: Optional[float]
    reference_name: str = ''
    reference: Optional[float] = None
    #: what the measured and the reference are: seconds, acquires a second, acquires, or bytes
    unit: str = 's'
    #: what is to reach the bound
    ratio: Optional[float] = None
    #: ``'≤'`` or ``'≥'``
    sense: str = '≤'
    #: ``None`` for what is there for comparison only
    bound: Optional[float] = None

    @property
    def reached(self) -> Optional[bool]:
        """``None`` if there is no telling."""
        value = self.measured if self.unit == 'B' else self.ratio
        if value is None or self.bound is None:
            return None
        return value <= self.bound if self.sense == '≤' else value >= self.bound

    def cells(self) -> Sequence[str]:
        """The texts for the table."""
        ratio = '' if self.ratio is None else f'{_rounded(self.ratio)}×'
        target = reached = ''
        if self.bound is not None:
            target = f'{self.sense} {self.bound:g}{" B" if self.unit == "B" else "×"}'
            reached = {None: 'not measured', True: 'yes', False: 'NO'}[self.reached]
        return (
            self.what, _with_unit(self.measured, self.unit), _with_unit(self.reference, self.unit),
            self.reference_name, ratio, target, reached,
        )  # fmt: skip

    def as_json(self) -> Dict[str, Any]:
        """All there is to be known, for programs."""
        return {**self._asdict(), 'reached': self.reached}


def slower(
    what: str, bound: Optional[float], measured: Optional[float], name: str, reference: Optional[float]
) -> Line:
    """A line about seconds, which are to be at most ``bound`` times those of the reference."""
    ratio = None if measured is None or reference is None else measured / reference
    return Line(what, measured, name, reference, 's', ratio, '≤', bound)


def faster(
    what: str, bound: Optional[float], measured: Optional[float], name: str, reference: Optional[float]
) -> Line:
    """A line about seconds, of which the reference is to take at least ``bound`` times as many."""
    ratio = None if measured is None or reference is None else reference / measured
    return Line(what, measured, name, reference, 's', ratio, '≥', bound)


def show(lines: Sequence[Line]) -> None:
    """Print the table, and how many targets were reached."""
    rows = [TITLES, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
    rows.insert(1, ['─' * width for width in widths])
    for row in rows:
        cells = (
            f'{cell:<{width}}' if column in TEXTS else f'{cell:>{width}}'
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        print('  '.join(cells).rstrip())
    targets = [line.reached for line in lines if line.bound is not None]
    print(f'\n{targets.count(True)} of {len(targets)} targets reached')


def _rounded(value: float) -> str:
    return f'{value:.2f}' if value < 5 else f'{value:.1f}' if value < 50 else f'{value:.0f}'


def _with_unit(value: Optional[float], unit: str) -> str:
    if value is None:
        return ''
    if unit == 's':
        return f'{value * 1e9:.0f} ns' if value < 1e-6 else f'{value * 1e6:.1f} µs'
    return f'{value:,.0f}{unit if unit.startswith("/") else f" {unit}"}'
