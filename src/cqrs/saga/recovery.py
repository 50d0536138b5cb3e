"""Recovery by hand: bring one saga to its end that somebody else began."""

from __future__ import annotations

import logging
import uuid
from typing import Any

from cqrs.container.protocol import Resolver
from cqrs.saga._run import RecoveryTurn
from cqrs.saga.models import ContextBuilder, ContextT
from cqrs.saga.saga import Saga
from cqrs.saga.storage.protocol import ISagaStorage
from cqrs.saga.transaction import SagaTransaction

_logger = logging.getLogger("cqrs")


async def recover_saga(
    saga: Saga[ContextT],
    saga_id: uuid.UUID,
    context_builder: ContextBuilder[ContextT],
    container: Resolver,
    storage: ISagaStorage,
    **options: Any,
) -> None:
    """Go on with a saga where its log ends: forward, or backward if it was being rolled back.

    Steps that are done are not done again; those of which nobody knows whether they have acted are treated
    as their ``on_unknown`` says. A saga that has COMPLETED is left as it is. Events that steps record are not
    published: a :class:`~cqrs.saga.recovery_worker.SagaRecoveryWorker` does that too.

    :param context_builder: the context's class, or a function that makes a context of the stored dictionary.
    :param options: keyword parameters of :class:`~cqrs.saga.transaction.SagaTransaction`.
    :raises SagaNotFoundError: the storage has no such saga.
    :raises SagaLockedError: somebody else is running it.
    :raises SagaRolledBackError: it was being rolled back, or had been: now it is, as far as can be.
    :raises SagaDeadlineExceededError: its deadline had passed, and it has been rolled back.
    :raises SagaParkedError: it waits for somebody to look at it.
    :raises SagaDefinitionError: its log does not fit its steps.
    :raises Exception: what a step raised; the saga has been rolled back.

    An attempt that leaves the saga where recovery must try again is counted in the storage. Cancelled, it
    leaves the saga as it is, to the next recovery.
    """
    options.setdefault("recovery", RecoveryTurn())
    async with SagaTransaction[ContextT](saga, None, container, storage, saga_id, **options) as transaction:
        await transaction.resume(context_builder)
        async for result in transaction:
            _logger.debug("Recovery of saga %s did step %s", saga_id, result.step_type.__name__)
