"""Mistakes that are put back one at a time, to see that the simulator finds each of them.

    MISTAKES = Mistakes(run)

    @MISTAKES.instead_of(Transport, "send")
    def ignore_a_short_send(send, self): ...

What is asserted is only that some seed fails with a mistake and not without it. Which seed, and of
which invariant, is printed (`pytest -s`).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import pytest

from .kernel import Failure


class Mistakes(dict[str, AbstractContextManager[object]]):
    """By name, what puts each in its place for a while; and the worlds that have to find it."""

    def __init__(self, run: Callable[[int], object], seeds: int = 1000) -> None:
        """A mistake that so many seeds do not find is not found."""
        super().__init__()
        self._run = run
        self._seeds = seeds
        self._hints: dict[str, int] = {}

    def instead_of(self, owner: Any, name: str, hint: int = 0) -> Callable[[Any], Any]:
        """A decorator: the function takes the place of `owner.name`, which it is given first.

        The seed `hint` is tried before all others.
        """
        original = getattr(owner, name)

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            def mistaken(*args: Any, **options: Any) -> Any:
                return function(original, *args, **options)

            self[function.__name__] = mock.patch.object(owner, name, mistaken)
            self._hints[function.__name__] = hint
            return function

        return register

    def check(self, name: str) -> None:
        """Some world fails with that mistake, and not without it."""
        with self[name]:
            seed, failure = self._first_failure(self._hints.get(name, 0))
        print(f"\n{name}: caught after {seed + 1} seeds: {failure}")
        self._run(seed)

    def _first_failure(self, hint: int) -> tuple[int, BaseException]:
        for seed in dict.fromkeys((hint, *range(self._seeds))):
            try:
                self._run(seed)
            except (Exception, Failure) as failure:
                return seed, failure
        pytest.fail(f"{self._seeds} seeds did not find it")
