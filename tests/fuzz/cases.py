"""Which public names are fed bad input, and with what."""

import decimal
import fractions
import math
from typing import Any, Callable, Dict, List, TypeVar

__all__ = (
    'COVERED', 'JUNK', 'NOT_A_NUMBER', 'IndexLike', 'FloatLike', 'NoRepr', 'Unhashable', 'covers', 'is_count', 'is_seconds',
)  # fmt: skip

FunctionT = TypeVar('FunctionT', bound=Callable[..., Any])

#: by public name (``module.Class.method``), the tests that feed it bad input
COVERED: Dict[str, List[str]] = {}


def covers(*names: str) -> Callable[[FunctionT], FunctionT]:
    """Say of a test which public names it feeds bad input."""

    def register(test: FunctionT) -> FunctionT:
        for name in names:
            COVERED.setdefault(name, []).append(test.__name__)
        return test

    return register


class IndexLike:
    """An integer of another library, such as numpy's."""

    def __init__(self, value: int):
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f'IndexLike({self.value})'


class FloatLike:
    """A number of another library that only turns into a float."""

    def __init__(self, value: float):
        self.value = value

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f'FloatLike({self.value})'


class NoRepr:
    """Its ``repr`` fails, which must not become the error that is reported."""

    def __repr__(self) -> str:
        raise RuntimeError('no repr')


class Unhashable:
    __hash__: Any = None


#: what no parameter takes for a number
NOT_A_NUMBER: List[Any] = [
    '1', b'1', bytearray(b'1'), '', True, False, [], {}, (), object(), NoRepr(), 1j, len, int, Unhashable(), Ellipsis,
    decimal.Decimal('NaN'), decimal.Decimal('sNaN'), math.nan, FloatLike(math.nan),
]  # fmt: skip
#: whatever a user might pass, numbers included
JUNK: List[Any] = [
    *NOT_A_NUMBER, None, 0, 1, -1, 2**31 - 1, 2**31, 2**63, -(2**63), 2**200, 10**5000, 0.0, -0.0, 0.5, -0.5, 1e300, math.inf,
    -math.inf, decimal.Decimal(2), decimal.Decimal('-0.5'), fractions.Fraction(5, 2), IndexLike(2), IndexLike(-2),
    IndexLike(2**100), FloatLike(1.5), FloatLike(-1.0), 'x' * 10_000,
]  # fmt: skip


def is_count(value: Any, minimum: int) -> bool:
    """Whether a parameter that counts something takes a value."""
    if isinstance(value, IndexLike):
        value = value.value
    return type(value) is int and minimum <= value <= 2**31 - 1


def is_seconds(value: Any) -> bool:
    """Whether a parameter that is a number of seconds takes a value."""
    if isinstance(value, (IndexLike, FloatLike)):
        value = value.value
    if isinstance(value, decimal.Decimal):
        return not value.is_nan() and value >= 0
    if type(value) is int:
        return value >= 0
    return type(value) in (float, fractions.Fraction) and value >= 0
