"""Deserializers: bytes to messages. The one for protobuf is in ``cqrs.deserializers.protobuf``."""

from __future__ import annotations

from cqrs.deserializers.exceptions import DeserializeJsonError
from cqrs.deserializers.json import Deserializable, JsonDeserializer

__all__ = ["Deserializable", "DeserializeJsonError", "JsonDeserializer"]
