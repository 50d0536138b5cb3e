"""Events: domain events for handlers in this process, notification events for a message broker."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
import typing
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import pydantic
from typing_extensions import Self, TypeVar, dataclass_transform

from cqrs._message_forms import DataclassMessage, PydanticMessage
from cqrs.events._specialise import specialised_dataclass

DEFAULT_OUTPUT_TOPIC = "output_topic"
"""The topic of notification events that name none."""

PayloadT = TypeVar("PayloadT", default=Any)
"""The payload of a notification event."""

ENVELOPE = ("correlation_id", "causation_id", "partition_key", "headers")
"""The optional fields of notification events, which are not written while unset."""


class IEvent(abc.ABC):
    """What every event can do. Implement it for events that are neither pydantic nor dataclass."""

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The event as a dictionary of its fields."""

    @classmethod
    @abc.abstractmethod
    def from_dict(cls, **kwargs: Any) -> Self:
        """An event made of its fields."""


@dataclasses.dataclass(frozen=True)
class DCEvent(DataclassMessage, IEvent):
    """An event that is a frozen dataclass.

    A generic one with arguments, ``Moved[int]``, is a class of its own, as it is with pydantic: it
    can be bound in an ``EventMap``, and it rebuilds its fields from a dictionary.

    Set ``read_camel_case = True`` on a subclass to let ``from_dict`` also take field names in
    camelCase, as some producers write them. ``to_dict`` always gives the fields' own names.
    """

    read_camel_case: ClassVar[bool] = False

    def __class_getitem__(cls, params: Any) -> Any:
        subscript = getattr(super(), "__class_getitem__", None)
        if subscript is None:
            raise TypeError(f"{cls.__qualname__} is not a generic class")
        return specialised_dataclass(cls, subscript(params))

    @classmethod
    def from_dict(cls, **kwargs: Any) -> Self:
        """An event made of its fields, converted to their declared types.

        :raises pydantic.ValidationError: a field is missing or does not convert.
        """
        return super().from_dict(**(_own_names(cls, kwargs) if cls.read_camel_case else kwargs))


# Frozen by configuration, not by ``frozen=True`` in the class line: type checkers would ask every subclass to
# repeat that. Decorated, so that pyright lets those who repeat it do so.
@dataclass_transform(kw_only_default=True, field_specifiers=(pydantic.Field, pydantic.PrivateAttr))
class PydanticEvent(PydanticMessage, IEvent):
    """An event that is a frozen pydantic model. ``Event`` is this class."""

    model_config: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(frozen=True)


Event = PydanticEvent


class IDomainEvent(IEvent):
    """An event that handlers in this process are told of."""


@dataclasses.dataclass(frozen=True)
class DCDomainEvent(DCEvent, IDomainEvent):
    """A domain event that is a frozen dataclass."""


@dataclass_transform(kw_only_default=True, field_specifiers=(pydantic.Field, pydantic.PrivateAttr))
class PydanticDomainEvent(PydanticEvent, IDomainEvent):
    """A domain event that is a frozen pydantic model. ``DomainEvent`` is this class."""


DomainEvent = PydanticDomainEvent


class INotificationEvent(IEvent, Generic[PayloadT]):
    """An event that is sent to a message broker.

    Beside the documented attributes an event may carry an envelope: ``correlation_id`` and
    ``causation_id`` (what it belongs to, and what caused it), ``partition_key`` (events with the
    same key stay in order) and ``headers``. All four are optional and left out of ``to_dict`` while unset.
    """

    # For type checkers alone: at run time pydantic and dataclasses own these names.
    if TYPE_CHECKING:
        event_id: uuid.UUID
        event_timestamp: dt.datetime
        event_name: str
        topic: str
        payload: PayloadT

    def proto(self) -> Any:
        """The event as a protobuf message. Override it to send this event as protobuf.

        :raises NotImplementedError: the event class does not override it.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not implement proto()")

    @classmethod
    def from_proto(cls, proto: Any) -> Self:
        """An event made of a protobuf message. Override it to receive this event as protobuf.

        :raises NotImplementedError: the event class does not override it.
        """
        raise NotImplementedError(f"{cls.__qualname__} does not implement from_proto()")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


@dataclasses.dataclass(frozen=True)
class DCNotificationEvent(DCEvent, INotificationEvent[PayloadT], Generic[PayloadT]):
    """A notification event that is a frozen dataclass: ``DCNotificationEvent[Payload]``."""

    event_name: str
    payload: PayloadT
    event_id: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)
    event_timestamp: dt.datetime = dataclasses.field(default_factory=_now)
    topic: str = DEFAULT_OUTPUT_TOPIC
    correlation_id: str | None = None
    causation_id: str | None = None
    partition_key: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    def to_dict(self) -> dict[str, Any]:
        """The event as a dictionary of its fields, without the parts of the envelope that are unset."""
        return _without_unset_envelope(super().to_dict())

    def __hash__(self) -> int:
        return hash(self.event_id)


@dataclass_transform(kw_only_default=True, field_specifiers=(pydantic.Field, pydantic.PrivateAttr))
class PydanticNotificationEvent(PydanticEvent, INotificationEvent[PayloadT], Generic[PayloadT]):
    """A notification event that is a frozen pydantic model. ``NotificationEvent`` is this class."""

    model_config: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(from_attributes=True)

    payload: PayloadT
    event_id: uuid.UUID = pydantic.Field(default_factory=uuid.uuid4)
    event_timestamp: dt.datetime = pydantic.Field(default_factory=_now)
    event_name: str
    topic: str = DEFAULT_OUTPUT_TOPIC
    correlation_id: str | None = None
    causation_id: str | None = None
    partition_key: str | None = None
    headers: Mapping[str, str] = pydantic.Field(default_factory=dict[str, str])

    def to_dict(self) -> dict[str, Any]:
        """The event as a dictionary of its fields, without the parts of the envelope that are unset."""
        return _without_unset_envelope(super().to_dict())

    def __hash__(self) -> int:
        return hash(self.event_id)


NotificationEvent = PydanticNotificationEvent


def _without_unset_envelope(fields: dict[str, Any]) -> dict[str, Any]:
    for name in ENVELOPE:
        if not fields.get(name, True):
            del fields[name]
    return fields


def _own_names(cls: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    own = {_camel_case(field.name): field.name for field in dataclasses.fields(typing.cast(Any, cls))}
    return {own.get(name, name): value for name, value in fields.items()}


def _camel_case(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)
