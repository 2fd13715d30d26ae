"""Tables for people to read, a row at a time."""

from typing import NamedTuple, Sequence


class Column(NamedTuple):
    title: str
    width: int
    #: text is aligned to the left, numbers are to the right
    is_text: bool = False


def show_header(columns: Sequence[Column]) -> None:
    """Print the titles, and a line below."""
    show_row(columns, [column.title for column in columns])
    print('  '.join('─' * column.width for column in columns), flush=True)


def show_row(columns: Sequence[Column], cells: Sequence[object]) -> None:
    """Print one row."""
    print(
        '  '.join(
            f'{cell!s:<{column.width}}' if column.is_text else f'{cell!s:>{column.width}}'
            for column, cell in zip(columns, cells)
        ).rstrip(),
        flush=True,
    )
