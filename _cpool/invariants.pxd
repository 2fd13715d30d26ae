# What a core keeps true between two operations: see invariants.pyx.

from _cpool.policy cimport state_t

cdef const char *violation(state_t *state) noexcept nogil
