"""What the managers of PostgreSQL drivers share."""

from typing import Any, Mapping

#: the connect keywords of each endpoint, by its name
DsnParameters = Mapping[str, Mapping[str, Any]]


def connect_parameters(dsn_params: DsnParameters, endpoint: str) -> Mapping[str, Any]:
    """Return the connect keywords of an endpoint.

    :raises KeyError: the endpoint is not known. Its message tells the names of those that are, and nothing of
        their parameters, which contain passwords
    """
    try:
        return dsn_params[endpoint]
    except KeyError:
        known = ', '.join(repr(name) for name in dsn_params) or 'none'
        raise KeyError(f'unknown endpoint {endpoint!r}; known are: {known}') from None


def malformed_dsn(endpoint: str) -> str:
    """Return what to say instead of the driver's own message, which quotes from the DSN, at times from the password."""
    return f'the dsn of endpoint {endpoint!r} cannot be parsed; a password may need percent-encoding or quotes'
