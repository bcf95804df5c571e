"""How calls are found and their bodies read: as messages are."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

import pydantic_core
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor

from worker.api.answers import Fault, Faults, Refusal
from worker.contract import one_line
from worker.encodings import BOM, foreign


class _Request(Request):
    async def json(self) -> Any:
        """The body, by the reader of messages: Python's own takes more for JSON than databases keep."""
        body = await self.body()
        try:
            return pydantic_core.from_json(body.removeprefix(BOM), allow_inf_nan=False)
        except ValueError as error:
            found = foreign(body)
            problem = f"is not JSON: {one_line(str(error))}" if found is None else f"is {found}, not JSON in UTF-8"
            faults = Faults(faults=[Fault(where="body", problem=problem)])
            raise Refusal(HTTPStatus.BAD_REQUEST, f"body: {problem}", faults) from None


class Route(APIRoute):
    """A call whose body is read so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The call, given such a request."""
        handle = super().get_route_handler()

        async def handle_request(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return handle_request


class _Id(Convertor[int]):
    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", _Id())
