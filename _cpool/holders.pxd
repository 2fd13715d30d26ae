# By what number a task is known as a holder of connections: see holders.pyx.

cdef extern from *:
    """
    /* A task runs in a context of its own, whose address is had for nothing; the task itself is not. The address is only
       compared, so the context may be gone. */
    static inline unsigned long gcp_current_holder(void) {
        return (unsigned long)(uintptr_t)PyThreadState_Get()->context;
    }
    """
    unsigned long holder_now "gcp_current_holder"() noexcept
