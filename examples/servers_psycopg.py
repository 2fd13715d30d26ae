"""How psycopg 3 gets to the PostgreSQL server of the examples."""

from typing import Any, Dict, Mapping

from servers import PostgresServer


def psycopg_parameters(server: PostgresServer) -> Mapping[str, Mapping[str, Any]]:
    """Return each endpoint's connect keywords: other drivers call ``database`` what psycopg 3 calls ``dbname``."""
    parameters: Dict[str, Dict[str, Any]] = {}
    for endpoint, others in server.dsn_params.items():
        parameters[endpoint] = dict(others)
        parameters[endpoint]['dbname'] = parameters[endpoint].pop('database')
    return parameters
