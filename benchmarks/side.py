"""One side of the comparison, in a process of its own: another core, or another release, of the same library.

Each request is a line of JSON from standard input, ``[module, function, arguments]``; so is each answer, on standard
output. The first answer comes unasked and says what side it is.
"""

import importlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Dict

import generic_connection_pool


def describe() -> Dict[str, str]:
    try:
        release = version('generic-connection-pool')
    except PackageNotFoundError:
        release = 'checkout'
    return {'release': release, 'core': getattr(generic_connection_pool, 'core_implementation', 'python')}


def main() -> None:
    print(json.dumps(describe()), flush=True)
    for line in sys.stdin:
        module, function, arguments = json.loads(line)
        answer = getattr(importlib.import_module(module), function)(*arguments)
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
