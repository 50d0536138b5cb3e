"""Containers that follow the documented protocol and do no more than it asks."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


class _Container:
    @property
    def external_container(self) -> None:
        return None

    def attach_external_container(self, container: object) -> None:
        raise NotImplementedError


class NewInstances(_Container):
    """Makes an instance at every call."""

    async def resolve(self, type_: type[T]) -> T:
        return type_()


class OneInstance(_Container):
    """Gives the instance that it was made with."""

    def __init__(self, instance: object) -> None:
        self._instance = instance

    async def resolve(self, type_: type) -> object:
        return self._instance
