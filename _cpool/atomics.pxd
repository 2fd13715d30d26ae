# Fields that are changed under the lock, but that one thread at least reads without it. Reads acquire and writes
# release, so that whoever sees the new value also sees what was written before it. With a GIL these are plain accesses.

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define gcp_load_int(place) _Py_atomic_load_int_acquire(place)
    #define gcp_store_int(place, value) _Py_atomic_store_int_release(place, value)
    #define gcp_load_ulong(place) _Py_atomic_load_ulong_relaxed(place)
    #define gcp_store_ulong(place, value) _Py_atomic_store_ulong_relaxed(place, value)
    #define gcp_count(place) (_Py_atomic_add_uint64(place, 1) + 1)
    #define gcp_exchange_int(place, value) _Py_atomic_exchange_int(place, value)
    #define gcp_load_pointer(place) _Py_atomic_load_ptr_acquire(place)
    #define gcp_store_pointer(place, value) _Py_atomic_store_ptr_release(place, value)
    #define gcp_exchange_pointer(place, value) _Py_atomic_exchange_ptr(place, value)
    #else
    static inline uint64_t gcp_count(uint64_t *place) { return ++*place; }
    static inline int gcp_exchange_int(int *place, int value) { int former = *place; *place = value; return former; }
    static inline void *gcp_exchange_pointer(void *place, void *value) {
        void *former = *(void **)place;
        *(void **)place = value;
        return former;
    }
    #define gcp_load_int(place) (*(place))
    #define gcp_store_int(place, value) ((void)(*(place) = (value)))
    #define gcp_load_ulong(place) (*(place))
    #define gcp_store_ulong(place, value) ((void)(*(place) = (value)))
    #define gcp_load_pointer(place) (*(void **)(place))
    #define gcp_store_pointer(place, value) ((void)(*(void **)(place) = (value)))
    #endif
    """
    int load_int "gcp_load_int"(int *place) noexcept nogil
    void store_int "gcp_store_int"(int *place, int value) noexcept nogil
    # these two order nothing: for what is only told
    unsigned long load_ulong "gcp_load_ulong"(unsigned long *place) noexcept nogil
    void store_ulong "gcp_store_ulong"(unsigned long *place, unsigned long value) noexcept nogil
    # adds 1 and answers the sum
    uint64_t count "gcp_count"(uint64_t *place) noexcept nogil
    int exchange_int "gcp_exchange_int"(int *place, int value) noexcept nogil
    void *load_pointer "gcp_load_pointer"(void *place) noexcept nogil
    void store_pointer "gcp_store_pointer"(void *place, void *value) noexcept nogil
    void *exchange_pointer "gcp_exchange_pointer"(void *place, void *value) noexcept nogil
