"""Requests and responses as pydantic models, as dataclasses, and as classes of one's own."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import anyio
from typing_extensions import Self

import cqrs
from cqrs.requests import bootstrap


class UserCreated(cqrs.Response):
    """A pydantic response."""

    user_id: str
    username: str


class CreateUser(cqrs.Request[UserCreated]):
    """A pydantic request."""

    username: str


@dataclasses.dataclass
class ProductCreated(cqrs.DCResponse):
    """A dataclass response."""

    product_id: str
    price: float


@dataclasses.dataclass
class CreateProduct(cqrs.DCRequest[ProductCreated]):
    """A dataclass request."""

    name: str
    price: float


class Pong(cqrs.IResponse):
    """A response that is neither: it says itself how it is written and read."""

    def __init__(self, text: str) -> None:
        self.text = text

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text}

    @classmethod
    def from_dict(cls, **kwargs: Any) -> Self:
        return cls(**kwargs)


class Ping(cqrs.IRequest[Pong]):
    """A request that is neither."""

    def __init__(self, text: str) -> None:
        self.text = text

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text}

    @classmethod
    def from_dict(cls, **kwargs: Any) -> Self:
        return cls(**kwargs)


class CreateUserHandler(cqrs.RequestHandler[CreateUser, UserCreated]):
    """Answers with a pydantic model."""

    async def handle(self, request: CreateUser) -> UserCreated:
        return UserCreated(user_id="u-1", username=request.username)


class CreateProductHandler(cqrs.RequestHandler[CreateProduct, ProductCreated]):
    """Answers with a dataclass."""

    async def handle(self, request: CreateProduct) -> ProductCreated:
        return ProductCreated(product_id="p-1", price=request.price)


class PingHandler(cqrs.RequestHandler[Ping, Pong]):
    """Answers with a class of the application's own."""

    async def handle(self, request: Ping) -> Pong:
        return Pong(request.text)


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """Kinds can be mixed freely."""
    mapper.bind(CreateUser, CreateUserHandler)
    mapper.bind(CreateProduct, CreateProductHandler)
    mapper.bind(Ping, PingHandler)


async def main() -> None:
    """Send one of each kind, and one that was read from a dictionary."""
    mediator = bootstrap.bootstrap(commands_mapper=bind_commands)

    print("pydantic: ", (await mediator.send(CreateUser(username="ada"))).to_dict())
    print("dataclass:", (await mediator.send(CreateProduct.from_dict(name="lamp", price="9.50"))).to_dict())
    print("own class:", (await mediator.send(Ping("hello"))).to_dict())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
