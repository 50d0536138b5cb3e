"""Serializers: messages to bytes. The one for protobuf is in ``cqrs.serializers.protobuf``."""

from __future__ import annotations

from cqrs.serializers.default import default_serializer

__all__ = ["default_serializer"]
