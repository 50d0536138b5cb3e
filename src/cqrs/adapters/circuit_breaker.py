"""A circuit breaker made of the parts of aiobreaker: its storages, its listeners, its errors.

aiobreaker's own way through a call knows nothing of cancellation, lets any number of trial calls
through a half-open circuit, and hides the error of the call that opens the circuit. So the calls are
driven here, on any event loop, and aiobreaker keeps the state.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias, TypeVar

from cqrs._optional_library import OptionalLibrary
from cqrs.circuit_breaker import ICircuitBreaker

_logger = logging.getLogger("cqrs.adapters.circuit_breaker")

_T = TypeVar("_T")

StorageFactory: TypeAlias = Callable[[str], Any]
"""Makes the ``aiobreaker.storage.base.CircuitBreakerStorage`` of the circuit of that name."""

Exclusion: TypeAlias = "type[Exception] | Callable[[Exception], bool]"
"""A class of errors, or a function that recognises them."""


class CriticalLogListener:
    """An aiobreaker listener that logs each change of a circuit's state at level CRITICAL.

    :param breaker_name: what the circuit is called in the log.
    """

    def __init__(self, breaker_name: str) -> None:
        self._breaker_name = breaker_name

    def before_call(self, breaker: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        """A function is about to be called."""

    def failure(self, breaker: Any, exception: Exception) -> None:
        """A call failed."""

    def success(self, breaker: Any) -> None:
        """A call succeeded."""

    def state_change(self, breaker: Any, old: Any, new: Any) -> None:
        """The circuit went from one state to another."""
        _logger.critical("Circuit breaker %s: %s -> %s", self._breaker_name, old.state.name, new.state.name)


def default_memory_storage_factory(name: str) -> Any:
    """A storage in this process's memory, closed.

    :param name: the name of the circuit, of no use here.
    :raises MissingDependencyError: aiobreaker is not installed.
    """
    library = _aiobreaker()
    return library.storage.memory.CircuitMemoryStorage(library.CircuitBreakerState.CLOSED)


class AioBreakerAdapter(ICircuitBreaker):
    """Circuit breakers by aiobreaker, one circuit for each identifier.

    After ``fail_max`` failures in a row the circuit opens and nothing is called. After
    ``timeout_duration`` one call at a time is let through as a trial: if it succeeds the circuit closes,
    if it fails the circuit stays open for as long again. A cancelled call counts as neither; after a
    cancelled trial the next call is the trial. A call that began before the circuit opened has no say
    once it is open.

    To share state between processes, pass a ``storage_factory`` that makes
    ``aiobreaker.storage.redis.CircuitRedisStorage`` with ``state=CircuitBreakerState.CLOSED`` and the name
    it is given as ``namespace``. Its client blocks the event loop, for some round trips a call: keep that
    Redis near, and give the client short timeouts. "One trial at a time" then holds in each process.

    :param fail_max: how many failures in a row open the circuit.
    :param timeout_duration: how long the circuit stays open, in seconds or as a timedelta.
    :param exclude: errors that are no failures, as classes or functions; they count as answers.
    :param storage_factory: makes the storage of a circuit out of its name, ``module.Class`` or
        the string given as identifier. Default: :func:`default_memory_storage_factory`.
    :param listeners: aiobreaker listeners that are told of every circuit, beside a :class:`CriticalLogListener`.
    :raises MissingDependencyError: aiobreaker is not installed.
    """

    def __init__(
        self,
        fail_max: int = 5,
        timeout_duration: float | timedelta = 60,
        exclude: Iterable[Exclusion] | None = None,
        storage_factory: StorageFactory | None = None,
        *,
        listeners: Iterable[Any] = (),
    ) -> None:
        self._library = _aiobreaker()
        self._fail_max = fail_max
        self._open_for = (
            timeout_duration if isinstance(timeout_duration, timedelta) else timedelta(seconds=timeout_duration)
        )
        self._exclude = tuple(exclude or ())
        self._storage_factory = storage_factory or default_memory_storage_factory
        self._listeners = tuple(listeners)
        self._circuits: dict[str, _Circuit] = {}

    async def call(self, identifier: type | str, func: Callable[..., Awaitable[_T]], *args: Any, **kwargs: Any) -> _T:
        """Call ``func(*args, **kwargs)`` and count how it ends, under the circuit of ``identifier``.

        :raises Exception: what ``func`` raised, the failure that opens the circuit included.
        :raises aiobreaker.CircuitBreakerError: the circuit is open, or half-open with its trial
            call under way. Nothing was called. Its ``reopen_time`` is naive local time.

        A cancelled call is neither a success nor a failure.
        """
        circuit = self._circuit(_name_of(identifier))
        is_trial = circuit.admit(func, args, kwargs)
        try:
            result = await func(*args, **kwargs)
        except Exception as error:
            circuit.record_error(error, is_trial=is_trial)
            raise
        else:
            circuit.record_success(is_trial=is_trial)
            return result
        finally:
            if is_trial:
                circuit.end_trial()

    def is_circuit_breaker_error(self, exc: Exception) -> bool:
        """Whether ``exc`` says that the circuit is open and nothing was called."""
        return isinstance(exc, self._library.CircuitBreakerError)

    def _circuit(self, name: str) -> _Circuit:
        if name not in self._circuits:
            breaker = self._library.CircuitBreaker(
                fail_max=self._fail_max,
                timeout_duration=self._open_for,
                exclude=self._exclude,
                listeners=(CriticalLogListener(name), *self._listeners),
                state_storage=(storage := self._storage_factory(name)),
                name=name,
            )
            self._circuits[name] = _Circuit(self._library, breaker, storage)
        return self._circuits[name]


class _Circuit:
    """The state machine of one circuit. No method of it awaits, so each is atomic among tasks."""

    def __init__(self, library: Any, breaker: Any, storage: Any) -> None:
        self._states = library.CircuitBreakerState
        self._refusal = library.CircuitBreakerError
        self._breaker = breaker
        self._storage = storage
        self._is_on_trial = False

    def admit(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Let a call through and tell whether it is the trial, or refuse it."""
        is_trial = self._state() is not self._states.CLOSED
        if is_trial:
            self._half_open()
        self._tell("before_call", func, *args, **kwargs)
        self._is_on_trial = self._is_on_trial or is_trial
        return is_trial

    def record_error(self, error: Exception, *, is_trial: bool) -> None:
        """Count a failed call, and open the circuit if that is one too many."""
        if self._is_excluded(error):
            self.record_success(is_trial=is_trial)
            return
        counts = is_trial or self._state() is self._states.CLOSED
        if counts:
            self._storage.increment_counter()
        self._tell("failure", error)
        if counts and (is_trial or self._storage.counter >= self._breaker.fail_max):
            self._storage.opened_at = _utc_now()
            self._move_to(self._states.OPEN)

    def record_success(self, *, is_trial: bool) -> None:
        """Count a call that was answered, and close the circuit if it was the trial."""
        if is_trial:
            self._move_to(self._states.CLOSED)
        else:
            self._storage.reset_counter()
        self._tell("success")

    def end_trial(self) -> None:
        """Let the next call be the trial, however this one ended."""
        self._is_on_trial = False

    def _state(self) -> Any:
        # The long way round: it notices, and tells the listeners, what another process changed.
        return self._breaker.state.state

    def _half_open(self) -> None:
        if self._is_on_trial:
            raise self._refusal("The circuit is half-open, and its trial call is under way", datetime.now())
        if self._state() is self._states.OPEN:
            remaining = self._remaining()
            if remaining > timedelta(0):
                raise self._refusal("The circuit is open", datetime.now() + remaining)
            self._move_to(self._states.HALF_OPEN)

    def _remaining(self) -> timedelta:
        opened_at = self._storage.opened_at
        return self._breaker.timeout_duration - (_utc_now() - opened_at) if opened_at else timedelta(0)

    # Not by open(), close() and half_open() of the breaker: these tell the listeners before the storage.
    def _move_to(self, state: Any) -> None:
        self._storage.state = state
        self._breaker.state = state

    def _is_excluded(self, error: Exception) -> bool:
        return any(
            isinstance(error, exclusion) if isinstance(exclusion, type) else exclusion(error)
            for exclusion in self._breaker.excluded_exceptions
        )

    def _tell(self, what: str, /, *args: Any, **kwargs: Any) -> None:
        for listener in self._breaker.listeners:
            getattr(listener, what)(self._breaker, *args, **kwargs)


def _utc_now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)  # naive, as the storages keep it


def _name_of(identifier: type | str) -> str:
    return identifier if isinstance(identifier, str) else f"{identifier.__module__}.{identifier.__qualname__}"


# Imported by name: the library carries no types, and must be missed on use, not on import.
def _aiobreaker() -> Any:
    with OptionalLibrary("aiobreaker", extra="aiobreaker"):
        return importlib.import_module("aiobreaker")
