"""Requests made of the routes' own table, each with something wrong in it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from edwin.openapi import ROUTES, Route
from edwin.openapi.parameters import Parameter
from edwin.validate import retrieve
from tools.fuzz.mutate import CHATS, TEXTS, mutated

# How often a route is chosen; the others 1.
WEIGHTS = {"createChatCompletion": 30, "createRun": 8, "resetSession": 4}
# A handshake is not one request among others, and these have nothing to get wrong.
LEFT_OUT = ("connect", "openapi", "health", "ready")
# No answer waits for a deadline of a millisecond on purpose.
TIMEOUTS = ["", "0", "-1", "x", "60000", "60000.5", "9999999999"]


class Request(NamedTuple):
    """A request, ready to be sent.

    Attributes:
        route: What it was made of.
        verb: Its method.
        target: Path and query, quoted.
        headers: Beside those that every request has.
        body: Its bytes, or None.

    """

    route: Route
    verb: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes | None


class Maker:
    """Makes requests, the same ones of the same dice.

    Args:
        dice: Choose everything.

    Attributes:
        ids: Of runs there are, to be asked for.

    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._routes = [route for route in ROUTES if route.name not in LEFT_OUT]
        self._weights = [WEIGHTS.get(route.name, 1) for route in self._routes]
        self._bodies = {
            route.body: [*retrieve(f"edwin:{route.body}")["examples"], *more]
            for route in self._routes
            if route.body
            for more in [CHATS if route.body.startswith("openai/") else []]
        }
        self.ids: list[str] = []

    def next(self) -> Request:
        """Return one more."""
        dice = self._dice
        (route,) = dice.choices(self._routes, self._weights)
        path, query, headers = route.path, [], []
        for parameter in route.takes:
            values = self._values(parameter)
            if parameter.place == "path":
                path = path.replace("{id}", quote(values[0], safe=""))
            elif parameter.place == "query":
                query += [(parameter.name, value) for value in values]
            else:
                headers += [(parameter.name, _header(value)) for value in values]
        body = None
        if route.body:
            body = mutated(dice, dice.choice(self._bodies[route.body]))
        return Request(
            route,
            "HEAD" if route.head and dice.random() < 0.1 else route.verb,
            f"{path}?{urlencode(query)}" if query else path,
            headers,
            body,
        )

    def _values(self, parameter: Parameter) -> Sequence[str]:
        """Return what is given for *parameter*: nothing, a value, or several."""
        dice, known = self._dice, self._known(parameter)
        junk = TIMEOUTS if parameter.name == "x-edwin-timeout-ms" else TEXTS
        if known and dice.random() < 0.7:
            return [dice.choice(known)]
        if parameter.place == "path":
            # Without it the URL is another one.
            return [dice.choice(junk) or "x"]
        if dice.random() < 0.6:
            return []
        count = 2 if dice.random() < 0.05 else 1
        return [dice.choice(junk) for _ in range(count)]

    def _known(self, parameter: Parameter) -> Sequence[Any]:
        if parameter.example == "run_0":
            return self.ids[-100:]
        return [] if parameter.example is None else [parameter.example]


def _header(value: str) -> str:
    """Return *value* as a client's library lets it pass as a header."""
    return "".join(c for c in value if " " <= c <= "~" or "\xa0" <= c <= "\xff")
