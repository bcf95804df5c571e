"""How calls are found, their bodies read, as messages are, and parameters refused that they have not."""

from collections.abc import Callable, Coroutine, Iterator
from http import HTTPStatus
from typing import Any

import pydantic_core
from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor

from worker.api.responses import MAX_FAULTS, Fault, Faults, Refusal
from worker.model.encodings import BOM, foreign
from worker.model.text import one_line


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
    """A call whose body is read so, and whose parameters are all known: a misspelt filter would find all."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The call, given such a request."""
        handle = super().get_route_handler()
        known = list(_parameters(self.dependant))
        may_be = f"may be {' or '.join(known)}" if known else "there are none here"

        async def handle_request(request: Request) -> Response:
            faults = [
                Fault(where=one_line(name), problem=f"is no parameter of this call; {may_be}")
                for name in dict(request.query_params)
                if name not in known
            ][:MAX_FAULTS]
            if faults:
                message = "; ".join(f"{fault.where}: {fault.problem}" for fault in faults[:1])
                raise Refusal(HTTPStatus.BAD_REQUEST, message, Faults(faults=faults))
            return await handle(_Request(request.scope, request.receive))

        return handle_request


def _parameters(dependant: Dependant) -> Iterator[str]:
    yield from (parameter.alias for parameter in dependant.query_params)
    for each in dependant.dependencies:
        yield from _parameters(each)


class _Id(Convertor[int]):
    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", _Id())
