"""How many interleavings of each case there are, and how many states they lead through. A case that has become smaller
than it was tries less than it says."""

from typing import Dict, Tuple

__all__ = ('EXPECTED',)

#: by the name of the case: interleavings and states with pools of size 1, and the same with pools of size 2
EXPECTED: Dict[str, Tuple[Tuple[int, int], Tuple[int, int]]] = {
    'use': ((18, 22), (845, 79)),
    'use of what is idle': ((111, 55), (310, 61)),
    'use of what may be idle': ((606, 149), (22381, 286)),
    'creating fails': ((742, 86), (13267, 110)),
    'creating fails, two endpoints': ((1238, 99), (25221, 124)),
    'closed while creating': ((556, 155), (714, 137)),
    'closed while in use': ((1237, 221), (6561, 338)),
    'closed by force': ((515, 160), (2870, 285)),
    'closed with a dead one': ((1413, 263), (35933, 857)),
    'a timeout races a grant': ((117, 73), (3204, 182)),
    'a cancellation races a grant': ((114, 70), (2884, 174)),
    'both race, and creating fails': ((258, 165), (2486, 181)),
    'a dead one is replaced': ((382, 126), (7999, 662)),
    'two dead ones are replaced': ((240, 145), (88117, 1286)),
    'a dead one under the total limit': ((653, 159), (38109, 657)),
    'eviction': ((176, 134), (29374, 361)),
    'eviction races a timeout': ((352, 173), (55079, 460)),
    'eviction races a cancellation': ((400, 158), (3228, 301)),
    'a victim is left to another': ((63, 61), (4181, 122)),
    'nothing to evict': ((346, 158), (11118, 248)),
    'closed while evicting': ((1976, 334), (99555, 671)),
    'expiry races an acquire': ((2720, 282), (14907, 623)),
    'expiry races an eviction': ((6528, 294), (40717, 646)),
    'a lifetime ends': ((695, 192), (12148, 515)),
    'nothing may be idle': ((29, 43), (7111, 131)),
    'the collector is told': ((18766, 370), (18766, 370)),
    'discarding': ((42, 55), (1303, 149)),
    'discarding under the total limit': ((283, 145), (8426, 210)),
    'given back twice': ((504, 80), (3848, 124)),
    'given back twice, another waits': ((1400, 98), (3960, 85)),
    'a slot changes hands': ((116, 92), (6257, 147)),
    'a slot changes hands while closing': ((987, 198), (13946, 253)),
    'outdated': ((570, 240), (18389, 732)),
    'bypass': ((84, 69), (84, 69)),
}
