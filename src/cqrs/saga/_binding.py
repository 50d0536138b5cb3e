"""What may be bound to a saga context, and why not."""

from __future__ import annotations

from typing import Any

from cqrs._generics import concrete_class
from cqrs.exceptions import SagaTypeError, name_of
from cqrs.saga.models import SagaContext
from cqrs.saga.saga import Saga


def check_saga(context_type: Any, saga_type: Any) -> None:
    """:raises SagaTypeError: ``saga_type`` is not a saga for contexts of ``context_type``."""
    if not _is_subclass(context_type, SagaContext):
        raise SagaTypeError(f"{name_of(context_type)} is not a saga context: derive it from SagaContext.")
    if not _is_subclass(saga_type, Saga):
        raise SagaTypeError(f"{name_of(saga_type)} is not a saga class: derive it from Saga.")
    declared = concrete_class(saga_type, Saga, 0)
    if declared is not None and not issubclass(context_type, declared):
        raise SagaTypeError(
            f"{name_of(saga_type)} is a saga for {name_of(declared)} and cannot be bound to {name_of(context_type)}."
        )


def _is_subclass(thing: Any, base: type[Any]) -> bool:
    return isinstance(thing, type) and issubclass(thing, base)
