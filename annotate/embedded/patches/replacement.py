"""One attribute of Argilla's replaced, and put back."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from argilla_server.api.routes import api_v1
from fastapi.routing import APIRoute


@dataclass(frozen=True)
class Replacement:
    """What stands in for an attribute of a module, a class or an object."""

    owner: Any
    name: str
    make: Callable[[Any], Any]
    """From the original (as it is found on the owner, unbound) to what replaces it."""


class Patch:
    """Some replacements that belong together; made once, however often it is asked for."""

    def __init__(self, *replacements: Replacement) -> None:
        self.replacements = replacements
        self._originals: list[Any] = []

    @property
    def applied(self) -> bool:
        """Whether it stands in for the originals now."""
        return bool(self._originals)

    def apply(self) -> None:
        """Replace."""
        if self.applied:
            return
        for one in self.replacements:
            original = inspect.getattr_static(one.owner, one.name)
            self._originals.append(original)
            setattr(one.owner, one.name, one.make(original))

    def undo(self) -> None:
        """Put the originals back."""
        pairs = list(zip(self.replacements, self._originals, strict=False))
        for one, original in reversed(pairs):
            setattr(one.owner, one.name, original)
        self._originals.clear()


def by(replacement: Any) -> Callable[[Any], Any]:
    """For a replacement that does not ask for the original."""
    return lambda _: replacement


def endpoint_of(endpoint: Any) -> Any:
    """The holder of the function (its attribute `call`) that answers an endpoint's route."""
    for route in api_v1.routes:
        if isinstance(route, APIRoute) and route.endpoint is endpoint:
            return route.dependant
    raise LookupError(f"Argilla has no route for {endpoint.__name__}")
