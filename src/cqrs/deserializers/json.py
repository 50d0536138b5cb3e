"""Messages from JSON."""

from __future__ import annotations

from typing import Any, Generic, Protocol, cast

import pydantic_core
from typing_extensions import Self, TypeVar

from cqrs.deserializers.exceptions import DeserializeJsonError
from cqrs.exceptions import BindingError, name_of


class Deserializable(Protocol):
    """A class whose instances can be made of their fields: each event, request and response."""

    @classmethod
    def from_dict(cls, **kwargs: Any) -> Self:
        """An instance made of its fields."""
        ...


ModelT = TypeVar("ModelT", bound=Deserializable)
"""What a deserializer makes."""


class JsonDeserializer(Generic[ModelT]):
    """Reads JSON objects as instances of ``model``. Its ``from_dict`` is given the object's members.

    :param model: a class with ``from_dict``, or a generic one with its arguments, ``NotificationEvent[Payload]``.
    :raises BindingError: it has no ``from_dict``.
    """

    def __init__(self, model: type[ModelT]) -> None:
        if not callable(getattr(model, "from_dict", None)):
            raise BindingError(
                f"{name_of(model)} has no from_dict: derive it from an event, request or response class, "
                f"or give it a classmethod from_dict(cls, **kwargs)."
            )
        self._model = model

    def __call__(self, data: str | bytes | None) -> ModelT | DeserializeJsonError | None:
        """The instance in ``data``; None for None; a ``DeserializeJsonError`` where it cannot be made.

        Whatever is wrong with the data is returned, and never raised.
        """
        if data is None:
            return None
        try:
            return self._model.from_dict(**_members(data))
        except Exception as error:  # noqa: BLE001  # from_dict is the application's: any error means bad data
            return DeserializeJsonError(str(error), type(error), data)


def _members(data: str | bytes) -> dict[str, Any]:
    parsed: object = pydantic_core.from_json(data)
    if not isinstance(parsed, dict):
        raise TypeError(f"a JSON object is expected, not {_JSON_NAMES.get(type(parsed), 'a number')}")
    return cast("dict[str, Any]", parsed)


_JSON_NAMES: dict[type, str] = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
