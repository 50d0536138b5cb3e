"""One call of a step: its handler, in its scope, inside middlewares, and the events that it recorded."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from typing import Any, TypeGuard

from cqrs.container.protocol import Resolver
from cqrs.container.scope import DispatchScope, is_scoped, needs_scope
from cqrs.events.event import IEvent
from cqrs.events.event_source import discard_events, unpublished
from cqrs.middlewares.base import MiddlewareChain
from cqrs.saga._progress import StepProgress
from cqrs.saga.models import SagaContext
from cqrs.saga.step import AnySagaStep, SagaStepResult, enter_step, leave_step


@dataclasses.dataclass(frozen=True)
class Acted:
    """What a step gave: its result, and the events to publish."""

    result: SagaStepResult[Any, Any]
    events: Sequence[IEvent]


class StepCaller:
    """Calls steps. The instance that acted compensates, unless what it was given from a scope is closed.

    A step whose dependencies live in a scope of the container acts in one, which is left when it has
    acted, so that what it did is committed before the log says so. To compensate it is made anew, in
    another scope.
    """

    def __init__(self, saga_id: uuid.UUID, container: Resolver, middlewares: MiddlewareChain | None) -> None:
        self._saga_id = saga_id
        self._container = container
        self._middlewares = middlewares
        self._has_scopes = is_scoped(container)

    async def act(self, step: StepProgress, context: SagaContext) -> Acted:
        """Let ``step`` act once.

        :raises Exception: what the step, a middleware or the container raised.
        """
        events: Sequence[IEvent] = ()

        async def handle(context: SagaContext) -> Any:
            nonlocal events
            result, events = await self._call(step, context)
            return result

        if self._middlewares:
            result = await self._middlewares.wrap(handle)(context)
        else:
            result = await handle(context)
        return Acted(self._labelled(step, result), events)

    async def _call(self, step: StepProgress, context: SagaContext) -> tuple[Any, Sequence[IEvent]]:
        if self._needs_scope(step):
            async with DispatchScope(self._container) as resolver:
                step.handler = await resolver.resolve(step.plan.step_type)
                return await self._act(step, step.handler, context)
        if step.handler is None:
            step.handler = await self._container.resolve(step.plan.step_type)
        return await self._act(step, step.handler, context)

    async def _act(
        self, step: StepProgress, handler: AnySagaStep, context: SagaContext
    ) -> tuple[Any, Sequence[IEvent]]:
        token = enter_step(f"{self._saga_id}/{step.plan.name}")
        try:
            result = await handler.act(context)
        except BaseException:
            discard_events(handler)
            raise
        finally:
            leave_step(token)
        # Whatever fails from here on, a middleware or a commit, the step may have acted.
        step.is_doubtful = True
        recorded = handler.events
        return result, unpublished(handler, recorded) if recorded else ()

    async def compensate(self, step: StepProgress, context: SagaContext) -> None:
        """Let ``step`` compensate once.

        :raises Exception: what the step or the container raised.
        """
        if self._needs_scope(step):
            async with DispatchScope(self._container) as resolver:
                await self._compensate(step, await resolver.resolve(step.plan.step_type), context)
                return
        if step.handler is None:
            step.handler = await self._container.resolve(step.plan.step_type)
        await self._compensate(step, step.handler, context)

    async def _compensate(self, step: StepProgress, handler: AnySagaStep, context: SagaContext) -> None:
        token = enter_step(f"{self._saga_id}/{step.plan.name}")
        try:
            await handler.compensate(context)
        finally:
            leave_step(token)

    def _needs_scope(self, step: StepProgress) -> bool:
        return self._has_scopes and needs_scope(self._container, step.plan.step_type)

    def _labelled(self, step: StepProgress, returned: object) -> SagaStepResult[Any, Any]:
        if not _is_result(returned):
            return SagaStepResult(returned, step.plan.step_type, saga_id=self._saga_id)
        # Not dataclasses.replace(), which takes three times as long.
        return SagaStepResult(
            returned.response,
            returned.step_type,
            returned.with_error,
            returned.error_message,
            returned.error_traceback,
            returned.error_type,
            self._saga_id,
        )


def _is_result(returned: object) -> TypeGuard[SagaStepResult[Any, Any]]:
    return isinstance(returned, SagaStepResult)
