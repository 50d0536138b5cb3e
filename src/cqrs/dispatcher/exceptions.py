"""The documented errors of dispatching. The tree of all errors is in :mod:`cqrs.exceptions`."""

from cqrs.exceptions import (
    RequestHandlerDoesNotExist,
    RequestHandlerTypeError,
    SagaConcurrencyError,
    SagaDoesNotExist,
)

__all__ = ["RequestHandlerDoesNotExist", "RequestHandlerTypeError", "SagaConcurrencyError", "SagaDoesNotExist"]
