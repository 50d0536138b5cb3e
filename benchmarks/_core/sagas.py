"""A saga whose steps do nothing but write a field, so that what is left is the engine's own cost."""

from __future__ import annotations

import dataclasses
from typing import Any

import cqrs
from cqrs.saga.models import SagaContext
from cqrs.saga.saga import Saga
from cqrs.saga.step import SagaStepHandler


class Done(cqrs.Response):
    number: int


@dataclasses.dataclass
class Order(SagaContext):
    order_id: str
    reservation: str | None = None
    payment: str | None = None
    shipment: str | None = None


class _Step(SagaStepHandler[Order, Done]):
    field: str

    async def act(self, context: Order) -> Any:
        setattr(context, self.field, "done")
        return self._generate_step_result(Done(number=1))

    async def compensate(self, context: Order) -> None:
        setattr(context, self.field, None)


class Reserve(_Step):
    field = "reservation"


class Pay(_Step):
    field = "payment"


class Ship(_Step):
    field = "shipment"


class OrderSaga(Saga[Order]):
    steps = [Reserve, Pay, Ship]  # noqa: RUF012  # as it is documented
