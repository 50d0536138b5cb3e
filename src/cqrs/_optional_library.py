"""The import of a library that an extra brings."""

from __future__ import annotations

from types import TracebackType

from cqrs.exceptions import MissingDependencyError


class OptionalLibrary:
    """``with OptionalLibrary("di", extra="di"): import di``: where it is missing, the error names the extra.

    :param distribution: what is installed.
    :param extra: the extra of this library that brings it.
    :param package: the top-level package that it has, where that is named otherwise.

    An import that fails for want of something else fails as it does anywhere.
    """

    def __init__(self, distribution: str, *, extra: str, package: str | None = None) -> None:
        self._distribution = distribution
        self._extra = extra
        self._package = package or distribution

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(exc, ImportError) and (exc.name or "").partition(".")[0] == self._package:
            raise MissingDependencyError(self._distribution, self._extra) from exc
