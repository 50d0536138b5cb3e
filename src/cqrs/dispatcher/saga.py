"""From a saga's context to a run of the saga."""

from __future__ import annotations

import dataclasses
import functools
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import timedelta
from typing import Any

from cqrs.container.protocol import Resolver
from cqrs.dispatcher.models import SagaDispatchResult
from cqrs.exceptions import ConfigurationError, SagaDoesNotExist, name_of
from cqrs.middlewares.base import MiddlewareChain
from cqrs.requests.map import SagaMap
from cqrs.retry import exponential
from cqrs.saga._run import RecoveryTurn
from cqrs.saga.models import ContextT, SagaContext, load_context
from cqrs.saga.options import COMPENSATION_TIMEOUT, LEASE_DURATION, SagaOptions
from cqrs.saga.saga import Saga
from cqrs.saga.storage.memory import MemorySagaStorage
from cqrs.saga.storage.protocol import ISagaStorage
from cqrs.saga.transaction import SagaTransaction


class SagaDispatcher:
    """Runs the saga that is bound to the type of a context.

    The parameters from ``storage`` on are those of :class:`~cqrs.saga.transaction.SagaTransaction`.

    :param saga_map: which saga runs for which context.
    :param container: where steps come from.
    :param storage: where sagas are kept. None: in memory.
    """

    def __init__(
        self,
        saga_map: SagaMap,
        container: Resolver,
        storage: ISagaStorage | None = None,
        middleware_chain: MiddlewareChain | None = None,
        compensation_retry_count: int = 3,
        compensation_retry_delay: float = 1.0,
        compensation_retry_backoff: float = 2.0,
        *,
        compensation_timeout: float = COMPENSATION_TIMEOUT,
        lease_duration: float = LEASE_DURATION,
    ) -> None:
        retry = exponential(compensation_retry_count, compensation_retry_delay, compensation_retry_backoff)
        self.storage: ISagaStorage = MemorySagaStorage() if storage is None else storage
        self.options: SagaOptions = SagaOptions(retry, compensation_timeout, lease_duration)
        self._saga_map = saga_map
        self._container = container
        self._middlewares = middleware_chain

    async def dispatch(
        self, context: SagaContext, saga_id: uuid.UUID | None = None
    ) -> AsyncGenerator[SagaDispatchResult, None]:
        """The results of a run, each with the events that its step recorded.

        An exception that is thrown in (``athrow``) rolls the saga back; ``aclose`` leaves it as it is.

        :raises SagaDoesNotExist: no saga is bound to the context.
        """
        async with self.transaction(context, saga_id) as transaction:
            while (acted := await transaction.advance()) is not None:
                yield SagaDispatchResult(acted.result, list(acted.events), str(transaction.saga_id))

    def transaction(
        self,
        context: ContextT,
        saga_id: uuid.UUID | None = None,
        *,
        deadline: float | timedelta | None = None,
    ) -> SagaTransaction[ContextT]:
        """A run of the saga that is bound to ``context``.

        :raises SagaDoesNotExist: none is.
        """
        saga_type = self._saga_map.get(type(context))
        if saga_type is None:
            raise SagaDoesNotExist(type(context))
        return self._transaction(saga_type, context, saga_id, deadline=deadline)

    def recovery(self, saga_type: type[Saga[Any]], saga_id: uuid.UUID, turn: RecoveryTurn) -> SagaTransaction[Any]:
        """A run that goes on with a saga that is in storage."""
        return self._transaction(saga_type, None, saga_id, recovery=turn)

    def _transaction(
        self, saga_type: type[Saga[Any]], context: Any, saga_id: uuid.UUID | None, **run: Any
    ) -> SagaTransaction[Any]:
        return SagaTransaction(
            saga_type,
            context,
            self._container,
            self.storage,
            saga_id,
            middleware_chain=self._middlewares,
            options=self.options,
            **run,
        )

    def names(self) -> Sequence[str]:
        """The names under which the storage keeps the sagas that are bound.

        :raises ConfigurationError: two sagas have one name, so that nobody could tell them apart in recovery.
        """
        return tuple(self._by_name())

    def named(self, name: str) -> tuple[type[Saga[Any]], Callable[[dict[str, Any]], SagaContext]]:
        """The saga that the storage keeps under ``name``, and what makes its context of what is stored.

        :raises SagaDoesNotExist: none of that name is bound.
        """
        try:
            saga_type, context_types = self._by_name()[name]
        except KeyError:
            raise SagaDoesNotExist(f"No saga named {name} is bound. Bind it: mapper.bind(Context, {name}).") from None
        return saga_type, functools.partial(_load_best, context_types)

    def _by_name(self) -> dict[str, tuple[type[Saga[Any]], list[type[SagaContext]]]]:
        found: dict[str, tuple[type[Saga[Any]], list[type[SagaContext]]]] = {}
        for context_type in self._saga_map:
            for saga_type in self._saga_map.sagas_of(context_type):
                known, contexts = found.setdefault(saga_type.__name__, (saga_type, []))
                contexts.append(context_type)
                if known is not saga_type:
                    raise ConfigurationError(
                        f"{name_of(saga_type)} of {saga_type.__module__} and of {known.__module__} have one name, "
                        f"under which both would be stored: rename one of them."
                    )
        return found


def _load_best(context_types: Sequence[type[SagaContext]], stored: dict[str, Any]) -> SagaContext:
    # A saga may be bound to several contexts: what is stored is of the one whose fields it has.
    def misfits(context_type: type[SagaContext]) -> int:
        return len(stored.keys() ^ {field.name for field in dataclasses.fields(context_type)})

    return load_context(min(context_types, key=misfits), stored)
