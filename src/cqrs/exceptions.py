"""Every error this library raises of its own accord.

The tree::

    CQRSError
    ├── ConfigurationError                     found while wiring, or at first use
    │   ├── BindingError                       (TypeError)
    │   │   ├── RequestHandlerTypeError
    │   │   ├── EventHandlerTypeError
    │   │   └── SagaTypeError
    │   ├── AlreadyBoundError                  (KeyError)
    │   ├── MiddlewareTypeError                (TypeError)
    │   ├── InvalidOptionError                 (ValueError)
    │   ├── ContainerNotAttachedError          (ValueError)
    │   ├── MessageBrokerNotConfiguredError    (RuntimeError)
    │   └── MissingDependencyError             (ImportError)
    ├── RequestHandlerDoesNotExist
    ├── EventTypeError                         (TypeError)
    ├── SagaDoesNotExist
    ├── SagaNotFoundError                      (ValueError)
    ├── SagaAlreadyExistsError                 (ValueError)
    ├── SagaConcurrencyError
    │   ├── SagaLockedError
    │   └── SagaLeaseLostError
    ├── SagaRolledBackError                    (RuntimeError)
    ├── SagaParkedError
    ├── SagaUsageError                         (RuntimeError)
    ├── SagaDefinitionError
    ├── SagaCompensationError
    ├── SagaStepTimeoutError                   (TimeoutError)
    ├── SagaDeadlineExceededError              (TimeoutError)
    ├── DependencyResolutionError              (ValueError)
    ├── SerializationError                     (TypeError)
    ├── DecompressionError                     (ValueError)
    ├── SubscriberBufferFullError              (BufferError)
    ├── HandlerTimeoutError                    (TimeoutError)
    ├── StrayCancellationError                 (RuntimeError)
    ├── ScopeCleanupTimeoutError               (TimeoutError)
    └── StreamError                            (RuntimeError)
        ├── StreamUsageError
        └── StreamAlreadyStartedError

An error that replaces a built-in one inherits from it as well, so that code which catches the
built-in error keeps working.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any


class CQRSError(Exception):
    """The root of all errors of this library: ``except CQRSError`` catches each of them."""


class ConfigurationError(CQRSError):
    """The application is wired wrongly. Raised while binding or bootstrapping, or at first use."""


class BindingError(ConfigurationError, TypeError):
    """Something that cannot serve as a handler, a message or a fallback was bound."""


class RequestHandlerTypeError(BindingError):
    """What was bound to a request is not a handler for it."""


class EventHandlerTypeError(BindingError):
    """What was bound to an event is not a handler for it."""


class SagaTypeError(BindingError):
    """What was bound to a saga context is not a saga for it."""


class AlreadyBoundError(ConfigurationError, KeyError):
    """A key was bound a second time in a registry that takes each key once.

    ``key`` and ``registry`` hold what was bound where.
    """

    def __init__(self, key: object, registry: str, hint: str) -> None:
        super().__init__(key, registry, hint)
        self.key = key
        self.registry = registry
        self.hint = hint

    def __str__(self) -> str:
        return f"{name_of(self.key)} already exists in {self.registry}. {self.hint}"


class MiddlewareTypeError(ConfigurationError, TypeError):
    """A middleware is not an async callable that takes a request and the next handler."""


class InvalidOptionError(ConfigurationError, ValueError):
    """An option was given a value that it cannot have.

    ``option`` is its name, ``value`` what it was given, ``allowed`` what it can be.
    """

    def __init__(self, option: str, value: object, allowed: str) -> None:
        super().__init__(option, value, allowed)
        self.option = option
        self.value = value
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.option} is {self.value!r}: it must be {self.allowed}."


class ContainerNotAttachedError(ConfigurationError, ValueError):
    """An adapter was asked to resolve before it was given the container that it adapts."""

    def __init__(self, adapter: str) -> None:
        super().__init__(adapter)
        self.adapter = adapter

    def __str__(self) -> str:
        return (
            f"External container not attached: {self.adapter} has no container to resolve from. "
            f"Pass it to the constructor or call attach_external_container(container) first."
        )


class MessageBrokerNotConfiguredError(ConfigurationError, RuntimeError):
    """A notification event was emitted by an emitter that has no message broker.

    ``event`` holds the event that was not sent.
    """

    def __init__(self, event: object) -> None:
        super().__init__(event)
        self.event = event

    def __str__(self) -> str:
        return (
            f"To send event {self.event!r}, message broker must be specified: "
            f"pass message_broker= to bootstrap() or to EventEmitter()."
        )


class MissingDependencyError(ConfigurationError, ImportError):
    """A feature needs an optional library that is not installed.

    ``library`` is the distribution that is missing, ``extra`` the extra that brings it.
    """

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library!r} is not installed. Install it with: pip install 'anyio-cqrs[{extra}]'")
        self.library = library
        self.extra = extra


class RequestHandlerDoesNotExist(CQRSError):
    """No handler is bound to the type of a request. ``request_type`` holds that type."""

    def __init__(self, request_type: object = None, known: Sequence[type] = ()) -> None:
        super().__init__(request_type)
        self.request_type = request_type
        self.known: tuple[type, ...] = tuple(known)

    def __str__(self) -> str:
        request_type: Any = self.request_type
        if not isinstance(request_type, type):
            return str(request_type or "RequestHandler not found")
        if type in request_type.__mro__:
            return "A request class was sent: send an instance of it."
        bound = ", ".join(sorted(name_of(kind) for kind in self.known)) or "nothing"
        return (
            f"RequestHandler not found matching Request type {request_type.__qualname__}. "
            f"Bind one: mapper.bind({request_type.__name__}, YourHandler). Bound so far: {bound}."
        )


class EventTypeError(CQRSError, TypeError):
    """Something was recorded or sent as an event that is none. ``event_type`` holds its type."""

    def __init__(self, event_type: type) -> None:
        super().__init__(event_type)
        self.event_type = event_type

    def __str__(self) -> str:
        if type in self.event_type.__mro__:
            return "An event class was recorded: record an instance of it."
        return f"{name_of(self.event_type)} is not an event: derive it from DomainEvent or NotificationEvent."


class SagaDoesNotExist(CQRSError):
    """No saga is bound to the type of a context. ``context_type`` holds that type."""

    def __init__(self, context_type: object = None) -> None:
        super().__init__(context_type)
        self.context_type = context_type

    def __str__(self) -> str:
        if not isinstance(self.context_type, type):
            return str(self.context_type or "Saga not found")
        return (
            f"Saga not found matching SagaContext type {name_of(self.context_type)}. "
            f"Bind one: mapper.bind({self.context_type.__name__}, YourSaga)."
        )


class SagaConcurrencyError(CQRSError):
    """A saga was changed by somebody else since it was read."""


class _AboutSaga(CQRSError):
    """An error about one run of a saga, whose id ``saga_id`` holds."""

    def __init__(self, saga_id: uuid.UUID, *details: object) -> None:
        # Not super().__init__: OSError would take two arguments for an errno and its text.
        Exception.__init__(self, saga_id, *details)
        self.saga_id = saga_id


class SagaNotFoundError(_AboutSaga, ValueError):
    """The storage holds no saga of this id. ``saga_id`` holds it."""

    def __str__(self) -> str:
        return f"Saga {self.saga_id} not found in the storage. Start it: mediator.stream(context, saga_id=...)."


class SagaAlreadyExistsError(_AboutSaga, ValueError):
    """The storage holds a saga of this id already. ``saga_id`` holds it."""

    def __str__(self) -> str:
        return f"Saga {self.saga_id} already exists. Give each saga an id of its own, or recover this one."


class SagaLockedError(_AboutSaga, SagaConcurrencyError):
    """Somebody else is running this saga. ``owner`` says who."""

    def __init__(self, saga_id: uuid.UUID, owner: str | None = None) -> None:
        super().__init__(saga_id, owner)
        self.owner = owner

    def __str__(self) -> str:
        return (
            f"Saga {self.saga_id} is being run by {self.owner or 'somebody else'}. "
            f"It can be taken over when that run has ended, or when its lease has."
        )


class SagaLeaseLostError(_AboutSaga, SagaConcurrencyError):
    """The lease on a saga ended, and somebody else may have taken the saga over: nothing was written.

    ``owner`` is the one that lost it.
    """

    def __init__(self, saga_id: uuid.UUID, owner: str) -> None:
        super().__init__(saga_id, owner)
        self.owner = owner

    def __str__(self) -> str:
        return (
            f"{self.owner} has lost its lease on saga {self.saga_id} and left it as it is, to whoever took it over. "
            f"Was the process paused? Otherwise grant a longer lease_duration."
        )


class SagaRolledBackError(_AboutSaga, RuntimeError):
    """A saga was asked to go on that is being rolled back, or has been: it cannot go forward any more.

    ``status`` is the status it was found in, ``current_status`` the one it has now.
    """

    def __init__(self, saga_id: uuid.UUID, status: str) -> None:
        super().__init__(saga_id, status)
        self.status = status
        self.current_status = status

    def __str__(self) -> str:
        return (
            f"Saga {self.saga_id} was recovered in {self.status} state, could only go backward from there, and is "
            f"{self.current_status} now. Start a new one."
        )


class SagaParkedError(_AboutSaga):
    """A saga waits for somebody to look at it. ``reason`` says why."""

    def __init__(self, saga_id: uuid.UUID, reason: str) -> None:
        super().__init__(saga_id, reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"Saga {self.saga_id} is parked: {self.reason}. "
            f"Look at its history, mend what is wrong, then call storage.unpark_saga(saga_id)."
        )


class SagaUsageError(CQRSError, RuntimeError):
    """Something of a saga was used where there is no saga, or the other way round."""


class SagaDefinitionError(_AboutSaga):
    """The log of a saga does not fit the steps that the saga has now. ``saga_name`` and ``reason`` say where."""

    def __init__(self, saga_id: uuid.UUID, saga_name: str, reason: str) -> None:
        super().__init__(saga_id, saga_name, reason)
        self.saga_name = saga_name
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"The log of saga {self.saga_id} does not fit {self.saga_name}: {self.reason}. "
            f"Recover it with the steps that it was started with; give changed sagas another class name."
        )


class SagaCompensationError(_AboutSaga):
    """A step could not be compensated, however often it was tried. Its last error is the cause.

    ``step_name`` is the step.
    """

    def __init__(self, saga_id: uuid.UUID, step_name: str) -> None:
        super().__init__(saga_id, step_name)
        self.step_name = step_name

    def __str__(self) -> str:
        reason = "" if self.__cause__ is None else f" ({self.__cause__!r})"
        return f"Step {self.step_name} of saga {self.saga_id} could not be compensated{reason}: recover the saga."


class SagaStepTimeoutError(_AboutSaga, TimeoutError):
    """A step did not end within its ``timeout`` and was cancelled: whether it has acted is unknown.

    ``step_name`` is the step, ``seconds`` the time it had.
    """

    def __init__(self, saga_id: uuid.UUID, step_name: str, seconds: float) -> None:
        super().__init__(saga_id, step_name, seconds)
        self.step_name = step_name
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"Step {self.step_name} of saga {self.saga_id} did not end within {self.seconds:g} s and was cancelled: "
            f"what it did is unknown. Grant it more with a larger 'timeout' on the step."
        )


class SagaDeadlineExceededError(_AboutSaga, TimeoutError):
    """A saga did not end before its deadline. ``deadline`` is when that was."""

    def __init__(self, saga_id: uuid.UUID, deadline: datetime) -> None:
        super().__init__(saga_id, deadline)
        self.deadline = deadline

    def __str__(self) -> str:
        return f"Saga {self.saga_id} did not end before its deadline, {self.deadline.isoformat()}."


class DependencyResolutionError(CQRSError, ValueError):
    """A container could not provide a type.

    ``requested_type`` is the type, ``container`` the name of the container; the container's own
    error, where there is one, is the cause.
    """

    def __init__(self, requested_type: object, container: str, reason: str) -> None:
        super().__init__(requested_type, container, reason)
        self.requested_type = requested_type
        self.container = container
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.container} cannot resolve {name_of(self.requested_type)}: {self.reason}"


class ScopeCleanupTimeoutError(CQRSError, TimeoutError):
    """Closing a container's scope took longer than it may and was given up.

    ``container`` is the name of the container, ``seconds`` the time that was allowed.
    """

    def __init__(self, container: str, seconds: float) -> None:
        super().__init__(container, seconds)
        self.container = container
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"A scope of {self.container} was not closed within {self.seconds:g} s: "
            f"look for a dependency whose clean-up waits for something that does not come."
        )


class HandlerTimeoutError(CQRSError, TimeoutError):
    """A handler did not end within the time that a ``TimeoutMiddleware`` grants it, and was cancelled.

    ``message_type`` is the class of what it handled, ``seconds`` the time it had.
    """

    def __init__(self, message_type: type, seconds: float) -> None:
        # Not super().__init__: OSError would take two arguments for an errno and its text.
        Exception.__init__(self, message_type, seconds)
        self.message_type = message_type
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"The handler of {name_of(self.message_type)} did not end within {self.seconds:g} s and was cancelled. "
            f"Grant it more: TimeoutMiddleware(..., overrides={{{self.message_type.__name__}: seconds}})."
        )


class StrayCancellationError(CQRSError, RuntimeError):
    """Code in a task was cancelled, and nobody had cancelled the task. The cancellation is the cause.

    It awaited something, a future for example, that somebody else has cancelled.
    """

    def __str__(self) -> str:
        return "Something was awaited that somebody else had cancelled: a future, a task or a pool that is closing."


class SerializationError(CQRSError, TypeError):
    """A message cannot be written in the form that a serializer writes.

    ``message_type`` is the type of the message; what refused it, where something did, is the cause.
    """

    def __init__(self, message_type: type, reason: str) -> None:
        super().__init__(message_type, reason)
        self.message_type = message_type
        self.reason = reason

    def __str__(self) -> str:
        return f"{name_of(self.message_type)} cannot be serialised: {self.reason}"


class DecompressionError(CQRSError, ValueError):
    """Data was not written by the compressor that was asked to read it. The compressor's own error is the cause."""


class SubscriberBufferFullError(CQRSError, BufferError):
    """A subscriber that wants an error rather than a wait has no room for a message. ``topic`` is the message's."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.topic = topic

    def __str__(self) -> str:
        return (
            f"A subscriber of topic {self.topic!r} has no room left, and no subscriber was given the message. "
            f"Read faster, or subscribe with a larger max_buffer_size."
        )


class StreamError(CQRSError, RuntimeError):
    """A result stream was used in a way that it cannot serve."""


class StreamUsageError(StreamError):
    """A result stream was iterated twice, after it was closed, or in a form its handler cannot serve."""


class StreamAlreadyStartedError(StreamError):
    """A middleware ran a streaming handler again after results had been handed out.

    The failure that made it try again is the cause.
    """


def name_of(thing: object) -> str:
    """A short name for use in messages: a class by its qualified name, anything else by its repr."""
    return thing.__qualname__ if isinstance(thing, type) else repr(thing)
