"""Dependency injection with the ``dependency-injector`` library."""

from __future__ import annotations

import argparse

import anyio
from dependency_injector import containers, providers

import cqrs
from cqrs.container.dependency_injector import DependencyInjectorCQRSContainer
from cqrs.requests import bootstrap


class Greeting(cqrs.Response):
    """What is said."""

    text: str


class Greet(cqrs.Request[Greeting]):
    """Greet somebody."""

    name: str


class Phrases:
    """Knows what to say."""

    def __init__(self, salutation: str) -> None:
        self._salutation = salutation

    def greeting_for(self, name: str) -> str:
        """The whole sentence."""
        return f"{self._salutation}, {name}!"


class GreetHandler(cqrs.RequestHandler[Greet, Greeting]):
    """Is given its service by the container."""

    def __init__(self, phrases: Phrases) -> None:
        self._phrases = phrases

    async def handle(self, request: Greet) -> Greeting:
        return Greeting(text=self._phrases.greeting_for(request.name))


class ApplicationContainer(containers.DeclarativeContainer):
    """What the application is made of."""

    config = providers.Configuration()
    phrases = providers.Singleton(Phrases, salutation=config.salutation)
    greet_handler = providers.Factory(GreetHandler, phrases=phrases)


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """The command."""
    mapper.bind(Greet, GreetHandler)


async def main() -> None:
    """Greet, then override a provider as a test would."""
    application = ApplicationContainer(config={"salutation": "Hello"})
    mediator = bootstrap.bootstrap(
        di_container=DependencyInjectorCQRSContainer(application), commands_mapper=bind_commands
    )
    print((await mediator.send(Greet(name="Ada"))).text)
    with application.phrases.override(providers.Object(Phrases("Good evening"))):
        print((await mediator.send(Greet(name="Ada"))).text)
    print((await mediator.send(Greet(name="Ada"))).text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
