"""The declaration of a saga: its steps, in order."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar, Generic, TypeAlias

from cqrs.container.protocol import Resolver
from cqrs.saga._plan import Stage, compile_stages
from cqrs.saga.fallback import Fallback
from cqrs.saga.models import ContextT
from cqrs.saga.parallel import Parallel
from cqrs.saga.pivot import Pivot
from cqrs.saga.step import SagaStepHandler
from cqrs.saga.storage.protocol import ISagaStorage
from cqrs.saga.transaction import SagaTransaction
from cqrs.saga.validation import SagaContextTypeExtractor, SagaStepValidator, seconds_of

SagaStep: TypeAlias = "type[SagaStepHandler[Any, Any]] | Fallback[Any] | Parallel[Any] | Pivot[Any]"
"""What ``Saga.steps`` lists."""


class Saga(Generic[ContextT]):
    """A distributed transaction: ``class OrderSaga(Saga[OrderContext]): steps = [Reserve, Pay]``.

    Its steps are checked when the class is made.

    :raises SagaTypeError: a step is none, is for another context, or is to be run in a way that cannot be.
    """

    steps: ClassVar[Sequence[SagaStep]] = ()
    """What it does, in order."""

    deadline: ClassVar[float | timedelta | None] = None
    """Seconds, or a timedelta, from its start in which it must be done; afterwards it is rolled back. None: any time.
    It is kept in the storage, and counts on after a recovery."""

    _compiled: ClassVar[tuple[Any, Sequence[Stage]] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._compiled = None  # inherited steps may not fit the context of this class
        cls.stages()
        seconds_of(cls.deadline, f"{cls.__qualname__}.deadline")

    @classmethod
    def stages(cls) -> Sequence[Stage]:
        """Its steps, checked and compiled; once, until others are put in their place."""
        compiled = cls._compiled
        if compiled is None or compiled[0] != tuple(cls.steps):
            context_type = SagaContextTypeExtractor.extract_from_class(cls, Saga)
            SagaStepValidator(cls.__name__, context_type).validate_steps(cls.steps)
            compiled = cls._compiled = (tuple(cls.steps), compile_stages(cls.steps))
        return compiled[1]

    @property
    def steps_count(self) -> int:
        """How many steps there are, a fallback or a parallel group counting as one."""
        return len(self.steps)

    def transaction(
        self,
        context: ContextT,
        container: Resolver,
        storage: ISagaStorage,
        saga_id: uuid.UUID | None = None,
        compensation_retry_count: int = 3,
        compensation_retry_delay: float = 1.0,
        compensation_retry_backoff: float = 2.0,
        **options: Any,
    ) -> SagaTransaction[ContextT]:
        """One run of this saga. The parameters are those of :class:`~cqrs.saga.transaction.SagaTransaction`."""
        return SagaTransaction(
            self,
            context,
            container,
            storage,
            saga_id,
            compensation_retry_count,
            compensation_retry_delay,
            compensation_retry_backoff,
            **options,
        )
