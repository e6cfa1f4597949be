"""Registries and services for the tests of this folder."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from house import Clock as HouseClock
from house import House, house

from kv.net.reactor import Reactor
from kv.registry import resp
from kv.registry.registry import Registry as Joined
from kv.registry.registry import joined
from kv.registry.resp import Place
from service.parts import LOOPBACK, Registry, missing, program

databases = itertools.count(1)


@pytest.fixture(scope="session")
def needs_registry() -> None:
    if program("Redis or Valkey") is None:
        pytest.skip("neither redis-server nor valkey-server is on this machine")


@pytest.fixture(scope="session")
def running(needs_registry: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that tests share, each with a database of its own."""
    path = tmp_path_factory.mktemp("registry")
    registry = Registry(path, 0, "--databases", "100")
    try:
        yield registry
    finally:
        registry.stop()


class Clock(HouseClock):
    """The real one, and what a house adds to it."""

    def __call__(self) -> float:
        return time.monotonic() + self.now


class RealRegistry:
    """For houses: joins a real registry."""

    def __init__(self, url: str, lease: float = 15.0) -> None:
        self.clock = Clock()
        self.place = Place(url)
        self.lease = lease

    def join(self, reactor: Reactor) -> Joined:
        return joined(self.place, self.lease)(reactor, clock=self.clock)  # type: ignore[call-arg]

    def read(self) -> bool:
        """It is no matter of the house's."""
        return False


@pytest.fixture
def database() -> int:
    """The number of a database that no other test uses."""
    return next(databases)


@pytest.fixture
def old(running: Registry, database: int) -> Registry:
    """The registry, in whose database ids are given away at once."""
    return grown(running, database)


def grown(registry: Registry, database: int = 0) -> Registry:
    """A registry that is not young any more."""
    registry.ask(*words(resp.request(resp.Act.CLAIM, (), (), 1)), database=database)
    registry.ask("DEL", "kv:young", database=database)
    return registry


def words(command: bytes) -> list[str]:
    from simulation.redis import commands  # noqa: PLC0415 (it knows the program)

    return [word.decode() for word in next(commands(bytearray(command)))]


@pytest.fixture
def open_house(old: Registry, database: int) -> Iterator[Callable[..., House]]:
    """A factory of servers in this process that share the test's database."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> House:
            url = options.pop("url", f"redis://{LOOPBACK}:{old.port}/{database}")
            registry = RealRegistry(url, options.pop("lease", 15.0))
            return stack.enter_context(house(registry=registry, **options))

        yield make


def until(houses: tuple[House, ...], condition: Callable[[], Any], what: str) -> Any:
    """Lets the houses' real time pass until then."""

    def settled() -> Any:
        for each in houses:
            each.settle()
        return condition()

    return wait_until(settled, what)


@pytest.fixture(scope="session")
def needs_all() -> None:
    if lacking := missing():
        pytest.skip(f"not on this machine: {', '.join(lacking)}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")
