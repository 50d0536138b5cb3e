"""A dictionary in which each key is bound once."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from cqrs.exceptions import AlreadyBoundError

K = TypeVar("K")
V = TypeVar("V")


class BindOnceRegistry(dict[K, V]):
    """Keys are added and read, and neither replaced nor removed."""

    _rebind_hint = "Bind each key once."

    def __init__(self) -> None:
        super().__init__()

    def __setitem__(self, key: K, value: V, /) -> None:
        if key in self:
            raise AlreadyBoundError(key, type(self).__name__, self._rebind_hint)
        super().__setitem__(key, value)

    def _put(self, key: K, value: V) -> None:
        super().__setitem__(key, value)

    def __delitem__(self, key: K, /) -> NoReturn:
        self._refuse()

    def __ior__(self, other: Any) -> NoReturn:  # type: ignore[misc]  # refused, whatever it is
        self._refuse()

    def clear(self) -> NoReturn:
        """Refused."""
        self._refuse()

    def pop(self, *_: Any) -> NoReturn:
        """Refused."""
        self._refuse()

    def popitem(self) -> NoReturn:
        """Refused."""
        self._refuse()

    def setdefault(self, *_: Any) -> NoReturn:
        """Refused: use bind()."""
        self._refuse()

    def update(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: use bind()."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} has no such method: what is bound is neither replaced nor removed. Use bind()."
        )
