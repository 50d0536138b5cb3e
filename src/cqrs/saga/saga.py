"""The declaration of a saga: its steps, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic

from cqrs.saga.models import ContextT
from cqrs.saga.step import SagaStepHandler


class Saga(Generic[ContextT]):
    """A distributed transaction: ``class OrderSaga(Saga[OrderContext]): steps = [Reserve, Pay]``."""

    steps: ClassVar[Sequence[type[SagaStepHandler[Any, Any]]]] = ()

    @property
    def steps_count(self) -> int:
        """How many steps there are."""
        return len(self.steps)
