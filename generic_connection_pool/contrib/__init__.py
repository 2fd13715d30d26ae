"""Ready-made connection managers, one module a library. Each imports nothing but its own library."""
