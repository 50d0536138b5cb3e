"""Messages from protobuf."""

from __future__ import annotations

from typing import Any, Generic, Protocol

from typing_extensions import Self, TypeVar

from cqrs.deserializers.exceptions import DeserializeProtobufError
from cqrs.exceptions import BindingError, name_of


class FromProto(Protocol):
    """A class whose instances can be made of a protobuf message: an event that implements ``from_proto``."""

    @classmethod
    def from_proto(cls, proto: Any, /) -> Self:
        """An instance made of a protobuf message."""
        ...


EventT = TypeVar("EventT", bound=FromProto)
"""What a deserializer makes."""


class ProtobufDeserializer(Generic[EventT]):
    """Reads protobuf's wire format as events.

    :param event_type: the class of the events, with ``from_proto``.
    :param proto_type: the generated class of the protobuf messages that ``from_proto`` takes.
    :raises BindingError: the one has no ``from_proto``, or the other is no class of protobuf messages.
    """

    def __init__(self, event_type: type[EventT], proto_type: type[Any]) -> None:
        if not callable(getattr(event_type, "from_proto", None)):
            raise BindingError(
                f"{name_of(event_type)} has no from_proto: give it a classmethod from_proto(cls, proto)."
            )
        if not callable(getattr(proto_type, "FromString", None)):
            raise BindingError(f"{name_of(proto_type)} is not a class of protobuf messages: it has no FromString.")
        self._event_type = event_type
        self._proto_type: Any = proto_type

    def __call__(self, data: bytes | None) -> EventT | DeserializeProtobufError | None:
        """The event in ``data``; None for None; a ``DeserializeProtobufError`` where it cannot be made.

        Whatever is wrong with the data is returned, and never raised.
        """
        if data is None:
            return None
        try:
            return self._event_type.from_proto(self._proto_type.FromString(data))
        except NotImplementedError:
            raise
        except Exception as error:  # noqa: BLE001  # from_proto is the application's: any error means bad data
            return DeserializeProtobufError(str(error), type(error), data)
