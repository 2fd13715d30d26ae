"""The compiled core of generic-connection-pool. Import it through ``generic_connection_pool._core`` only."""
