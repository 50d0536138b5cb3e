"""The container of the ``di`` library."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
from typing_extensions import Self

from cqrs._optional_library import OptionalLibrary
from cqrs.container._once import Once
from cqrs.container._resources import ResourceStack
from cqrs.container.protocol import Container, Resolver
from cqrs.container.scope import DispatchScope
from cqrs.exceptions import ContainerNotAttachedError, DependencyResolutionError, name_of

with OptionalLibrary("di", extra="di"):
    import di
    from di import dependent, executors
    from di.api.dependencies import DependencyParameter, DependentBase
    from di.api.executor import SupportsAsyncExecutor, SupportsTaskGraph
    from di.exceptions import DependencyInjectionException, UnknownScopeError

T = TypeVar("T")

REQUEST_SCOPE = "request"
"""The scope of handlers and of what is bound without a scope."""

_EXECUTOR = executors.AsyncExecutor()


class DIContainer(Container[di.Container]):
    """Resolves from a ``di.Container``, in the scope ``"request"``.

    Each type is solved once, and again when the binds of the container have changed. A graph of plain
    classes and functions is called directly; generators and async functions go through ``di``'s executor.

    :param container: the container to resolve from; it can be attached later.
    :param state: where the application has scopes of its own around the requests
        (``async with container.enter_scope("app") as state``), the state of the innermost of them.
    """

    def __init__(self, container: di.Container | None = None, *, state: di.ScopeState | None = None) -> None:
        self._container = container
        self._state = di.ScopeState() if state is None else state
        self._scopes = (*self._state.stacks, REQUEST_SCOPE)
        self._plans: dict[Any, _Plan] = {}
        self._outer_executor = _OuterValuesExecutor()

    @property
    def external_container(self) -> di.Container:
        """The ``di.Container`` that is resolved from.

        :raises ContainerNotAttachedError: there is none yet.
        """
        if self._container is None:
            raise ContainerNotAttachedError("DIContainer")
        return self._container

    def attach_external_container(self, container: di.Container) -> None:
        """Resolve from ``container`` from now on."""
        self._container = container
        self._plans = {}

    async def resolve(self, type_: type[T]) -> T:
        """An instance of ``type_``.

        Where that opens something, it is done in a scope of its own which is left before the instance is
        returned, so that nothing leaks: use :meth:`scope` to have what was opened stay open.

        :raises DependencyResolutionError: ``type_`` or something that it needs cannot be provided.
        :raises ContainerNotAttachedError: no container is attached.
        """
        plan = self._plan(type_)
        if plan.direct is not None:
            return plan.direct()  # type: ignore[no-any-return]
        if not plan.needs_scope:
            return await self.execute(type_, self.enter_state(ResourceStack()))  # type: ignore[no-any-return]
        async with DispatchScope(self) as resolver:
            return await resolver.resolve(type_)

    def scope(self) -> AbstractAsyncContextManager[Resolver]:
        """A ``"request"`` scope. What is made in it is shared in it, as far as it uses ``di``'s cache.

        What generator dependencies opened is closed, in reverse order, when it is left. Each of them is
        thrown the exception that the scope is left with and cannot suppress it. All are closed even if
        one of them raises. Closing is not shielded from cancellation here.
        """
        return _RequestScope(self)

    def needs_scope(self, type_: type) -> bool:
        """Whether ``type_`` needs a generator of the request scope. False for what cannot be resolved."""
        try:
            return self._plan(type_).needs_scope
        except DependencyResolutionError:
            return False

    def enter_state(self, resources: ResourceStack) -> di.ScopeState:
        """The state of a new request scope, whose generators are opened in ``resources``."""
        context = self.external_container.enter_scope(REQUEST_SCOPE, self._state)
        state = context.__enter__()
        state.stacks[REQUEST_SCOPE] = resources
        return state

    async def execute(self, type_: Any, state: di.ScopeState) -> Any:
        """An instance of ``type_``, made in ``state``."""
        plan = self._plan(type_)
        if not plan.lacks_outer_values:
            return await plan.solved.execute_async(_EXECUTOR, state)
        instance = await plan.solved.execute_async(self._outer_executor, state)
        plan.lacks_outer_values = False
        return instance

    def _plan(self, type_: Any) -> _Plan:
        plan = self._plans.get(type_)
        # The list of binds is private, but nothing public tells that a bind has come or gone.
        if plan is None or plan.binds != self.external_container._bind_hooks:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            plan = self._plans[type_] = self._solve(type_)
        return plan

    def _solve(self, type_: Any) -> _Plan:
        container = self.external_container
        binds = list(container._bind_hooks)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        try:
            solved = container.solve(
                dependent.Dependent[Any](type_, scope=REQUEST_SCOPE), self._scopes, scope_resolver=_scope_of
            )
        except DependencyInjectionException as error:
            raise _failure(type_, _explanation(error)) from error
        except (NameError, TypeError, ValueError) as error:
            raise _failure(type_, f"its parameters cannot be read ({error}).") from error
        _refuse_abstract(type_, solved)
        return _Plan.of(solved, binds)


class _RequestScope(AbstractAsyncContextManager["_RequestScope", None]):
    """One request scope of ``di``."""

    def __init__(self, container: DIContainer) -> None:
        self._container = container
        self._resources = ResourceStack()
        self._state: di.ScopeState | None = None
        self._is_resolving = False
        self._resolved: anyio.Event | None = None

    async def __aenter__(self) -> Self:
        self._state = self._container.enter_state(self._resources)
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._state = None
        resources: Any = self._resources
        await resources.__aexit__(*failure)

    async def resolve(self, type_: type[T]) -> T:
        while self._is_resolving:  # two at a time would make twice what they share
            self._resolved = self._resolved or anyio.Event()
            await self._resolved.wait()
        if self._state is None:
            raise _failure(type_, "its scope is not open.")
        self._is_resolving = True
        try:
            return await self._container.execute(type_, self._state)  # type: ignore[no-any-return]
        finally:
            self._is_resolving = False
            self._wake_waiting()

    def _wake_waiting(self) -> None:
        if self._resolved is not None:
            self._resolved.set()
            self._resolved = None


class _OuterValuesExecutor(SupportsAsyncExecutor):
    """Makes what the scopes around the requests share once, whoever asks for it at the same time."""

    def __init__(self) -> None:
        self._made = Once()

    async def execute_async(self, tasks: SupportsTaskGraph, state: Any) -> None:
        for task in tasks.static_order():
            await self._share(task, state)
            await _compute(task, state)

    async def _share(self, task: Any, state: Any) -> None:
        if task.scope != REQUEST_SCOPE and task.dependent.use_cache:
            await self._made.get((task.scope, task.cache_key), functools.partial(_compute, task, state))


async def _compute(task: Any, state: Any) -> None:
    pending = task.compute(state)
    if pending is not None:
        await pending


@dataclass(eq=False)
class _Plan:
    """How one type is made under one set of binds."""

    binds: Sequence[Any]
    solved: di.SolvedDependent[Any]
    direct: Callable[[], Any] | None
    """Makes the instance without a scope and without awaiting anything; None where that cannot be done."""
    needs_scope: bool
    lacks_outer_values: bool
    """Whether values of outer scopes have yet to be made, so that two requests could make them."""

    @classmethod
    def of(cls, solved: di.SolvedDependent[Any], binds: Sequence[Any]) -> _Plan:
        nodes = list(_nodes(solved))
        return cls(
            binds=binds,
            solved=solved,
            direct=_direct(solved) if all(_is_plain(node) for node in nodes) else None,
            needs_scope=any(_is_generator(node.call) and _is_of_request(node) for node in nodes),
            lacks_outer_values=not all(_is_of_request(node) for node in nodes),
        )


def _nodes(solved: di.SolvedDependent[Any]) -> Iterator[DependentBase[Any]]:
    """What is called, dependencies before what needs them."""
    return (node for node in solved.dag if node.call is not None)


def _direct(solved: di.SolvedDependent[Any]) -> Callable[[], Any]:
    """Calls each node of a plain graph once, as ``di`` does within one execution."""
    place = {node.cache_key: index for index, node in enumerate(_nodes(solved))}
    steps = [_step(node, solved.dag[node], place) for node in _nodes(solved)]
    if len(steps) == 1:
        return steps[0][0]

    def make() -> Any:
        made: list[Any] = []
        for call, arguments in steps:
            made.append(call() if arguments is None else call(*arguments(made)))
        return made[-1]

    return make


def _step(
    node: DependentBase[Any], parameters: Any, place: dict[Any, int]
) -> tuple[Callable[..., Any], Callable[[list[Any]], Any] | None]:
    """What to call, and how to pick its arguments from what has been made before."""
    positions: list[int] = []
    names: list[str] = []
    for parameter in _passed(parameters):
        positions.append(place[parameter.dependency.cache_key])
        if parameter.parameter is not None and parameter.parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            names.append(parameter.parameter.name)
    call: Any = node.call
    return (_with_names(call, names) if names else call), _picker(positions)


def _passed(parameters: Any) -> Iterator[DependencyParameter]:
    """The parameters that are given a value, positional ones first."""
    passed = [it for it in parameters if it.parameter is not None and it.dependency.call is not None]
    return iter(sorted(passed, key=lambda it: it.parameter.kind is inspect.Parameter.KEYWORD_ONLY))


def _picker(positions: list[int]) -> Callable[[list[Any]], Any] | None:
    match positions:
        case []:
            return None
        case [only]:
            return operator.itemgetter(slice(only, only + 1))
        case _:
            return operator.itemgetter(*positions)


def _with_names(call: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    def call_with_names(*arguments: Any) -> Any:
        positional = len(arguments) - len(names)
        return call(*arguments[:positional], **dict(zip(names, arguments[positional:], strict=True)))

    return call_with_names


def _scope_of(node: DependentBase[Any], _sub_scopes: Sequence[Any], _scopes: Sequence[Any]) -> Any:
    return REQUEST_SCOPE if node.scope is None else node.scope


def _is_of_request(node: DependentBase[Any]) -> bool:
    return node.scope is None or node.scope == REQUEST_SCOPE


def _is_plain(node: DependentBase[Any]) -> bool:
    return _is_of_request(node) and _is_sync(node.call) and not _is_generator(node.call)


def _is_sync(call: Any) -> bool:
    return inspect.isclass(call) or not _is_function(call, inspect.iscoroutinefunction, inspect.isasyncgenfunction)


def _is_generator(call: Any) -> bool:
    return _is_function(call, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def _is_function(call: Any, *kinds: Callable[[Any], bool]) -> bool:
    """Whether ``call`` or what it wraps is of one of ``kinds``, as ``di`` sees it."""
    while isinstance(call, functools.partial) or getattr(call, "__wrapped__", None):
        call = call.func if isinstance(call, functools.partial) else call.__wrapped__
    return any(kind(call) or kind(getattr(call, "__call__", None)) for kind in kinds)  # noqa: B004


def _refuse_abstract(type_: Any, solved: di.SolvedDependent[Any]) -> None:
    for node in _nodes(solved):
        if inspect.isclass(node.call) and (inspect.isabstract(node.call) or getattr(node.call, "_is_protocol", False)):
            name = name_of(node.call)
            raise _failure(
                type_,
                f"{_path_text(_path_to(node, solved))}: {name} is abstract. Bind an implementation: container.bind("
                f'di.bind_by_type(dependent.Dependent(Implementation, scope="{REQUEST_SCOPE}"), {name})).',
            )


def _path_to(node: DependentBase[Any], solved: di.SolvedDependent[Any]) -> list[DependentBase[Any]]:
    path = [node]
    for user in _nodes(solved):
        if any(it.dependency.cache_key == path[0].cache_key for it in solved.dag[user]):
            path.insert(0, user)
    return path


def _explanation(error: DependencyInjectionException) -> str:
    path: list[DependentBase[Any]] = getattr(error, "path", [])
    reason = str(error).partition("\n")[0]
    if isinstance(error, UnknownScopeError):
        reason += " Enter that scope and pass its state: DIContainer(container, state=state)."
    return f"{_path_text(path)}: {reason}" if path else reason


def _path_text(path: list[DependentBase[Any]]) -> str:
    return " -> ".join(name_of(node.call) for node in path)


def _failure(type_: Any, reason: str) -> DependencyResolutionError:
    return DependencyResolutionError(type_, "DIContainer", reason)
