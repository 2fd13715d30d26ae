"""What was not reached, and whether ``misses.toml`` explains it.

A miss is named by its file, the function that it is in, and the text of its line, so that it is known again when lines
above it come and go. Of a branch, the text is that of the two lines that it leads from and to: ``if a: -> return b``.
"""

import functools
import re
import sys
from pathlib import Path
from typing import Any, Collection, Dict, Iterator, List, NamedTuple, Sequence, Set

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXPLANATIONS = Path(__file__).with_name('misses.toml')
#: where a branch leads that leaves its function
LEAVES = 'leaves'
#: explains whatever is missed in a function
EVERYTHING = '*'

_OPENS = re.compile(r'(?:async def|c?p?def|(?:cdef |cpdef )?class)\b(?P<rest>.*)')
_NAME = re.compile(r'(\w+)\s*(?:\[[^]]*\])?\s*(?:\(|:|$)')


class Miss(NamedTuple):
    """Something that was not reached, or the key of its explanation."""

    file: str
    function: str
    text: str


class Found(NamedTuple):
    """A miss, and where it is now."""

    miss: Miss
    line: int


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def function_of(lines: Sequence[str], number: int) -> str:
    """The qualified name of the function or class that a line is in, of Python or of Cython. Empty for the module."""
    names: List[str] = []
    indent = _indent(lines[number - 1])
    for line in reversed(lines[: number - 1]):
        if line.strip() and _indent(line) < indent and not line.lstrip().startswith((')', '#')):
            indent = _indent(line)
            opens = _OPENS.match(line.lstrip())
            name = _NAME.search(opens['rest']) if opens else None
            if name:
                names.insert(0, name[1])
    return '.'.join(names)


def misses_of(root: Path, report: Dict[str, Any]) -> Iterator[Found]:
    """Yield what was not reached.

    :param root: where the files are that the report names
    :param report: that of ``coverage json``
    """
    for name, file in sorted(report['files'].items()):
        lines = (root / name).read_text(encoding='utf-8').splitlines()
        missing = set(file['missing_lines'])
        for line in sorted(missing):
            yield Found(Miss(name, function_of(lines, line), lines[line - 1].strip()), line)
        for start, end in file.get('missing_branches', ()):
            if start not in missing:  # or the line is a miss itself
                where = LEAVES if end < 0 else lines[end - 1].strip()
                text = f'{lines[start - 1].strip()} -> {where}'
                yield Found(Miss(name, function_of(lines, start), text), start)


def explained() -> Dict[Miss, str]:
    """Return all misses that are explained, and why they are."""
    entries = tomllib.loads(EXPLANATIONS.read_text(encoding='utf-8')).get('miss', ())
    return {
        Miss(entry['file'], entry['function'], text): entry['reason'] for entry in entries for text in entry['lines']
    }


def is_explained(miss: Miss, reasons: Collection[Miss]) -> bool:
    return miss in reasons or miss._replace(text=EVERYTHING) in reasons


def outdated(root: Path, reasons: Collection[Miss]) -> List[Miss]:
    """Return the explanations of what does not exist any more."""
    return [miss for miss in reasons if not _exists(root, miss)]


def _exists(root: Path, miss: Miss) -> bool:
    known = _texts(root / miss.file).get(miss.function, set())
    return miss.text in known or all(text in known | {LEAVES} for text in miss.text.split(' -> '))


@functools.lru_cache(maxsize=None)
def _texts(path: Path) -> Dict[str, Set[str]]:
    """The texts of the lines of each function of a file."""
    lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
    texts: Dict[str, Set[str]] = {}
    for number, line in enumerate(lines, 1):
        texts.setdefault(function_of(lines, number), {EVERYTHING}).add(line.strip())
    return texts
