"""Sagas as Mermaid diagrams."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cqrs._generics import concrete_argument, type_arguments
from cqrs._mermaid import (
    Attribute,
    Block,
    Branch,
    ClassBox,
    ClassDiagram,
    Message,
    Method,
    Note,
    Participant,
    Relation,
    RelationKind,
    SequenceDiagram,
    Step,
    attributes_of,
    classes_with_fields,
    distinct_names,
    inheritance,
    type_name,
)
from cqrs._overriding import overrides
from cqrs.exceptions import SagaStepTimeoutError, SagaTypeError, name_of
from cqrs.response import IResponse
from cqrs.saga._plan import Branch as Alternatives
from cqrs.saga._plan import Stage, StepPlan
from cqrs.saga.fallback import Fallback
from cqrs.saga.saga import Saga
from cqrs.saga.step import AnySagaStep, OnUnknown, SagaStepHandler
from cqrs.saga.validation import seconds_of


class SagaMermaid:
    """Draws a saga: what it does, how it is rolled back, and which types take part.

    :param saga: a saga class, or an instance of one.
    :raises SagaTypeError: it is neither, or its steps will not do.
    """

    def __init__(self, saga: Saga[Any] | type[Saga[Any]]) -> None:
        self._declaration = _Declaration.of(saga)

    def sequence(self) -> str:
        """A sequence diagram: the way forward, and what is compensated when a step fails, latest step first.

        Steps that have nothing to compensate are left out there. The storage, written before and after each
        step of any saga, is not drawn, and neither is a compensation that fails for good.
        """
        return _Course(self._declaration).diagram().render()

    def class_diagram(self) -> str:
        """A class diagram: the saga, its context, its steps and their bases, and the responses with their fields."""
        return _Structure(self._declaration).diagram().render()


@dataclasses.dataclass(frozen=True)
class _StepTypes:
    """A step with what it takes and gives; None where it does not say."""

    step: type[AnySagaStep]
    context: Any
    response: Any

    @classmethod
    def of(cls, step: type[AnySagaStep]) -> _StepTypes:
        arguments = type_arguments(step, SagaStepHandler)
        if arguments is None:
            return cls(step, None, None)
        context, response = (*arguments, types.NoneType)[:2]
        return cls(step, context, response)

    @property
    def contexts(self) -> Sequence[Any]:
        return classes_with_fields(self.context)

    @property
    def responses(self) -> Sequence[Any]:
        return classes_with_fields(self.response, (IResponse,))

    def bases(self) -> Sequence[type]:
        """The classes between the step and SagaStepHandler, nearest first."""
        between: list[type] = [base for base in self.step.__mro__[1:] if issubclass(base, SagaStepHandler)]
        return between[:-1]

    def classes_in_sight(self) -> Sequence[type]:
        messages = (typing.get_origin(message) or message for message in (*self.contexts, *self.responses))
        return [self.step, *self.bases(), *messages]


@dataclasses.dataclass(frozen=True)
class _Declaration:
    """A saga, taken apart.

    :param steps: each step class once, in the order of its first turn.
    :param names: what classes are called in the diagrams.
    """

    saga: type[Saga[Any]]
    contexts: Sequence[Any]
    stages: Sequence[Stage]
    steps: Sequence[_StepTypes]
    names: Mapping[type, str]

    @classmethod
    def of(cls, saga: object) -> _Declaration:
        saga_type = _checked(saga)
        stages = saga_type.stages()
        contexts = classes_with_fields(concrete_argument(saga_type, Saga, 0))
        step_types = dict.fromkeys(plan.step_type for stage in stages for plan in stage.steps)
        steps = [_StepTypes.of(step) for step in step_types]
        in_sight = (klass for step in steps for klass in step.classes_in_sight())
        context_types = (typing.get_origin(context) or context for context in contexts)
        names = distinct_names([saga_type, SagaStepHandler, *context_types, *in_sight])
        return cls(saga_type, contexts, stages, steps, names)


def _checked(saga: object) -> type[Saga[Any]]:
    saga_type = saga if isinstance(saga, type) else type(saga)
    if not issubclass(saga_type, Saga):
        raise SagaTypeError(f"{name_of(saga)} is no saga: give a class that derives from Saga, or an instance of one.")
    return saga_type  # pyright: ignore[reportUnknownVariableType]


def _can_compensate(step: type[AnySagaStep]) -> bool:
    return overrides(step, SagaStepHandler, "compensate")


class _Course:
    """What happens in a saga, as a sequence diagram."""

    def __init__(self, declaration: _Declaration) -> None:
        self._stages = declaration.stages
        self._names = declaration.names
        self._deadline = declaration.saga.deadline
        self._caller = Participant("C", "Caller")
        self._saga = Participant("S", self._names[declaration.saga])
        self._types = {declared.step: declared for declared in declaration.steps}
        self._lifelines = {
            step: Participant(f"S{number}", self._names[step]) for number, step in enumerate(self._types, start=1)
        }

    def diagram(self) -> SequenceDiagram:
        participants = [self._caller, self._saga, *self._lifelines.values()]
        course: Sequence[Step] = [self._note("no steps"), self._ends_completed()]
        if self._stages:
            endings = [self._success(), self._rollback(), *self._left_to_recovery(), *self._parked()]
            course = [Block("alt", endings)]
        return SequenceDiagram(participants, [Message(self._caller, self._saga, "stream(context)"), *course])

    def _note(self, text: str) -> Note:
        return Note([self._saga], text)

    def _ends_completed(self) -> Message:
        return Message(self._saga, self._caller, "saga COMPLETED", is_reply=True)

    def _ends_with_error(self, status: str) -> Message:
        return Message(self._saga, self._caller, f"error, saga {status}", is_reply=True)

    def _success(self) -> Branch:
        turns = (turn for stage in self._stages for turn in self._turns(stage))
        return Branch("every step is done", [*turns, self._ends_completed()])

    def _turns(self, stage: Stage) -> Iterator[Step]:
        if stage.limit < len(stage.branches):
            yield self._note(f"at most {stage.limit} at once")
        turns = [Branch(self._either(one.steps), list(self._turn(one))) for one in stage.branches]
        yield from turns[0].steps if len(turns) == 1 else (Block("par", turns),)
        if stage.is_pivot:
            yield self._note("point of no return, from here on only forward")

    def _turn(self, alternatives: Alternatives) -> Iterator[Step]:
        primary, fallback = alternatives.primary, alternatives.fallback
        if fallback is None or alternatives.policy is None:
            yield from self._act(primary)
            return
        failure = f"{self._label(primary)} {_failure(alternatives.policy)}"
        branches = [
            Branch(f"{self._label(primary)} acts", list(self._act(primary))),
            Branch(failure, [*self._undone_first(primary, alternatives.policy), *self._act(fallback)]),
        ]
        yield Block("alt", branches)

    def _act(self, plan: StepPlan) -> Iterator[Step]:
        lifeline = self._lifelines[plan.step_type]
        yield Message(self._saga, lifeline, ", ".join(["act(context)", *_limits(plan)]))
        yield Message(lifeline, self._saga, self._response_of(plan.step_type), is_reply=True)

    def _response_of(self, step: type[AnySagaStep]) -> str:
        response = self._types[step].response
        if response is types.NoneType:
            return "done"
        return "response" if response is None else type_name(response, self._names)

    def _undone_first(self, primary: StepPlan, policy: Fallback[Any]) -> Iterator[Step]:
        """What a first step may have done that timed out, before the fallback acts."""
        leads_to_fallback = not policy.failure_exceptions or issubclass(SagaStepTimeoutError, policy.failure_exceptions)
        if primary.timeout is not None and leads_to_fallback and _can_compensate(primary.step_type):
            yield Block("opt", [Branch(f"{self._label(primary)} timed out", [self._compensate(primary)])])

    def _compensate(self, plan: StepPlan) -> Message:
        return Message(self._saga, self._lifelines[plan.step_type], "compensate(context)")

    def _rollback(self) -> Branch:
        causes = ["a step fails", "the run is cancelled"]
        seconds = seconds_of(self._deadline, "deadline")
        if seconds is not None:
            causes.append(f"{seconds:g} s are over")
        pivot = self._pivot()
        prefix = f"up to {self._either(pivot.steps)}, " if pivot else ""
        steps: list[Step] = [*self._compensations(), self._ends_with_error("FAILED")]
        return Branch(prefix + _listed(causes), steps)

    def _compensations(self) -> Sequence[Step]:
        compensations = [step for stage in reversed(self._revocable()) for step in self._undoing(stage)]
        return compensations or [self._note("nothing to compensate")]

    def _undoing(self, stage: Stage) -> Iterator[Step]:
        undoing = [
            Branch(self._either(one.steps), [block])
            for one in stage.branches
            for block in self._undoing_one_of(one, stage)
        ]
        if len(undoing) == 1:
            yield from undoing[0].steps
        elif undoing:
            yield Block("par", undoing)

    def _undoing_one_of(self, alternatives: Alternatives, stage: Stage) -> Iterator[Block]:
        branches = [
            Branch(f"{self._label(plan)} {condition}", [self._compensate(plan)])
            for plan in alternatives.steps
            if _can_compensate(plan.step_type) and (condition := _when_undone(plan, stage))
        ]
        if branches:
            yield Block("opt" if len(branches) == 1 else "alt", branches)

    def _left_to_recovery(self) -> Iterator[Branch]:
        causes = [f"{label} is interrupted" for label in self._with_policy(OnUnknown.RETRY, self._revocable())]
        if self._stages[-1].is_behind_pivot:
            causes += ["a step behind the point of no return fails", "is interrupted"]
        if causes:
            steps: list[Step] = [self._note("recovery goes on forward"), self._ends_with_error("RUNNING")]
            yield Branch(_listed(causes), steps)

    def _parked(self) -> Iterator[Branch]:
        causes = [f"{label} is interrupted" for label in self._with_policy(OnUnknown.PARK, self._stages)]
        if causes:
            steps: list[Step] = [self._note("somebody has to look at it"), self._ends_with_error("parked")]
            yield Branch(_listed(causes), steps)

    def _with_policy(self, policy: OnUnknown, stages: Sequence[Stage]) -> Sequence[str]:
        return [self._label(plan) for stage in stages for plan in stage.steps if plan.on_unknown is policy]

    def _revocable(self) -> Sequence[Stage]:
        return [stage for stage in self._stages if not stage.is_behind_pivot]

    def _pivot(self) -> Stage | None:
        return next((stage for stage in self._stages if stage.is_pivot), None)

    def _either(self, plans: Sequence[StepPlan] | Iterator[StepPlan]) -> str:
        return " or ".join(map(self._label, plans))

    def _label(self, plan: StepPlan) -> str:
        """Its class's name in the diagram, with the number that the log gives to a second turn."""
        return self._names[plan.step_type] + plan.name.removeprefix(plan.step_type.__name__)


def _listed(causes: Sequence[str]) -> str:
    *first, last = causes
    return f"{', '.join(first)} or {last}" if first else last


def _failure(policy: Fallback[Any]) -> str:
    errors = " or ".join(error.__name__ for error in policy.failure_exceptions)
    failure = f"fails with {errors}" if errors else "fails"
    return f"{failure}, or its circuit is open" if policy.circuit_breaker is not None else failure


def _limits(plan: StepPlan) -> Iterator[str]:
    if plan.timeout is not None:
        yield f"within {plan.timeout:g} s"
    if plan.retry is not None and plan.retry.attempts > 1:
        yield f"up to {plan.retry.attempts} attempts"


def _when_undone(plan: StepPlan, stage: Stage) -> str | None:
    """When a rollback compensates the step; None where it never does."""
    if stage.is_pivot:
        return "may have acted" if plan.on_unknown is OnUnknown.COMPENSATE else None
    # A step that would be tried again is undone all the same when another one of its group fails.
    is_kept = plan.on_unknown is OnUnknown.RETRY and len(stage.branches) == 1
    return "acted" if is_kept or plan.on_unknown is OnUnknown.PARK else "acted, or may have"


class _Structure:
    """The types of a saga, as a class diagram."""

    def __init__(self, declaration: _Declaration) -> None:
        self._declaration = declaration
        self._names = declaration.names
        context = ", ".join(type_name(one, self._names) for one in declaration.contexts) or "SagaContext"
        transaction = Method("transaction", [Attribute("context", context)], f"SagaTransaction[{context}]")
        self._saga = ClassBox(self._names[declaration.saga], [transaction], stereotype="saga")

    def diagram(self) -> ClassDiagram:
        steps, messages = self._step_boxes(), self._message_boxes()
        relations = [*inheritance({**steps, **messages}), *self._turns(steps), *self._fallbacks(steps)]
        relations += [
            Relation(self._saga, RelationKind.USES, messages[one], "uses") for one in self._declaration.contexts
        ]
        for declared in self._declaration.steps:
            box = steps[declared.step]
            relations += [Relation(box, RelationKind.USES, messages[one], "uses") for one in declared.contexts]
            relations += [Relation(box, RelationKind.USES, messages[one], "returns") for one in declared.responses]
        return ClassDiagram([self._saga, *steps.values(), *messages.values()], relations)

    def _step_boxes(self) -> dict[Any, ClassBox]:
        if not self._declaration.steps:
            return {}
        boxes: dict[Any, ClassBox] = {SagaStepHandler: self._base_box()}
        for declared in self._declaration.steps:
            for base in reversed(declared.bases()):
                stereotype = "abstract" if inspect.isabstract(base) else None
                boxes.setdefault(base, ClassBox(self._names[base], stereotype=stereotype))
        # A step may be the base of another one: its own box, with its methods, takes the place.
        return boxes | {declared.step: self._step_box(declared) for declared in self._declaration.steps}

    def _base_box(self) -> ClassBox:
        context = [Attribute("context", "Context")]
        members: list[Attribute | Method] = [
            Attribute("events", "Sequence[IEvent]"),
            Method("act", context, "SagaStepResult[Context, Response]"),
            Method("compensate", context, "None"),
        ]
        return ClassBox(self._names[SagaStepHandler], members, stereotype="abstract")

    def _step_box(self, declared: _StepTypes) -> ClassBox:
        context = "Any" if declared.context is None else type_name(declared.context, self._names)
        response = "Any" if declared.response is None else type_name(declared.response, self._names)
        parameters = [Attribute("context", context)]
        methods = [Method("act", parameters, f"SagaStepResult[{context}, {response}]")]
        if _can_compensate(declared.step):
            methods.append(Method("compensate", parameters, "None"))
        return ClassBox(self._names[declared.step], methods)

    def _message_boxes(self) -> dict[Any, ClassBox]:
        of_steps = (
            message for declared in self._declaration.steps for message in (*declared.contexts, *declared.responses)
        )
        return {
            message: ClassBox(type_name(message, self._names), attributes_of(message, self._names))
            for message in (*self._declaration.contexts, *of_steps)
        }

    def _turns(self, boxes: Mapping[Any, ClassBox]) -> Iterator[Relation]:
        """From the saga to the steps that it tries first, with their places."""
        places: dict[type[AnySagaStep], list[str]] = {}
        for number, stage in enumerate(self._declaration.stages, start=1):
            kind = " as pivot" if stage.is_pivot else " in parallel" if len(stage.branches) > 1 else ""
            for alternatives in stage.branches:
                places.setdefault(alternatives.primary.step_type, []).append(f"step {number}{kind}")
        for step, turns in places.items():
            yield Relation(self._saga, RelationKind.LEADS_TO, boxes[step], ", ".join(dict.fromkeys(turns)))

    def _fallbacks(self, boxes: Mapping[Any, ClassBox]) -> Iterator[Relation]:
        pairs = {
            (alternatives.primary.step_type, alternatives.fallback.step_type): None
            for stage in self._declaration.stages
            for alternatives in stage.branches
            if alternatives.fallback is not None
        }
        for primary, fallback in pairs:
            yield Relation(boxes[primary], RelationKind.LEADS_TO, boxes[fallback], "fallback")


__all__ = ["SagaMermaid"]
