"""What the managers of PostgreSQL drivers share."""

from typing import Any, Mapping

from ._parameters import check_by_endpoint

#: the connect keywords of each endpoint, by its name
DsnParameters = Mapping[str, Mapping[str, Any]]


def check_parameters(dsn_params: Any) -> DsnParameters:
    """Return connect keywords as they are. What is wrong with them is told without their values, which are secret.

    :raises TypeError: they are no mapping of mappings
    """
    check_by_endpoint('dsn_params', dsn_params)
    for endpoint, params in dsn_params.items():
        if not isinstance(params, Mapping):
            kind = type(params).__name__
            raise TypeError(f'dsn_params[{endpoint!r}] must be a mapping of connect keywords, not a {kind}')
    checked: DsnParameters = dsn_params
    return checked


def malformed_dsn(endpoint: str) -> str:
    """Return what to say instead of the driver's own message, which quotes from the DSN, at times from the password."""
    return f'the dsn of endpoint {endpoint!r} cannot be parsed; a password may need percent-encoding or quotes'
