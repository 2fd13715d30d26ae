"""What all managers whose endpoints are names share."""

from typing import Hashable, Mapping, TypeVar

from .._messages import show

__all__ = ('find_endpoint',)

KeyT = TypeVar('KeyT', bound=Hashable)
ParametersT = TypeVar('ParametersT')


def find_endpoint(parameters: Mapping[KeyT, ParametersT], endpoint: KeyT) -> ParametersT:
    """Return what is known of an endpoint.

    :param parameters: what is known of each, by its name
    :param endpoint: its name
    :raises KeyError: nothing is. Its message tells the names of the endpoints that are known, and nothing of their
        parameters, which contain passwords
    """
    try:
        return parameters[endpoint]
    except KeyError:
        known = ', '.join(map(show, parameters)) or 'none'
        raise KeyError(f'unknown endpoint {show(endpoint)}; known are: {known}') from None
