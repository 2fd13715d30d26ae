"""One job of the demo, in a process of its own, because the core is chosen when the library is imported.

The order comes as a line of JSON from standard input, the report goes as a line of JSON to standard output. Then the
process waits for standard input to end, so that whoever ordered can look for connections that were left open.
"""

import json
import sys
from typing import Any, Dict

import demo_asyncio
import demo_threads
from demo_ledger import Ledger, Order

import generic_connection_pool

JOBS = {'threads': demo_threads.run, 'asyncio': demo_asyncio.run}


def as_ordered(line: str) -> Order:
    """Read an order. What was a tuple, such as an endpoint, has become a list on the way."""
    order = Order(**json.loads(line))
    endpoints = [tuple(endpoint) if isinstance(endpoint, list) else endpoint for endpoint in order.where['endpoints']]
    return order._replace(where={**order.where, 'endpoints': endpoints})


def report(order: Order) -> Dict[str, Any]:
    if generic_connection_pool.core_implementation != order.core:
        return {'error': f'the core in use is {generic_connection_pool.core_implementation!r}'}
    ledger = Ledger()
    try:
        microseconds = JOBS[order.runtime](order, ledger)
    except Exception as exc:
        return {'error': f'{type(exc).__name__}: {exc}'}
    return {**ledger.totals(), 'microseconds': microseconds}


def main() -> None:
    print(json.dumps(report(as_ordered(sys.stdin.readline()))), flush=True)
    sys.stdin.read()


if __name__ == '__main__':
    main()
