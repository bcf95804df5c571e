"""Routes that parse bodies like messages, and reject query parameters that are unknown or that say two things."""

from collections.abc import Callable, Coroutine, Iterator
from http import HTTPStatus
from typing import Any, get_args, get_origin

import pydantic_core
from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor

from worker.api.responses import MAX_FAULTS, ApiError, Fault, Faults
from worker.model.encodings import BOM, foreign
from worker.model.text import one_line


class _Request(Request):
    async def json(self) -> Any:
        """Parse the body like a message: `json.loads` accepts values that databases cannot store."""
        body = await self.body()
        try:
            return pydantic_core.from_json(body.removeprefix(BOM), allow_inf_nan=False)
        except ValueError as error:
            found = foreign(body)
            problem = f"is not JSON: {one_line(str(error))}" if found is None else f"is {found}, not JSON in UTF-8"
            if found is not None and found.startswith("compressed"):
                problem = f"is {found}, which Content-Encoding does not say; gzip and deflate are read"
            faults = Faults(faults=[Fault(where="body", problem=problem)])
            raise ApiError(HTTPStatus.BAD_REQUEST, f"body: {problem}", faults) from None


class Route(APIRoute):
    """Rejects unknown query parameters, since a misspelt filter would select everything, and repeated ones
    that have one value, since all but the last would be ignored.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler with these checks."""
        handle = super().get_route_handler()
        known = dict(_parameters(self.dependant))
        allowed = f"allowed: {', '.join(known)}" if known else "none is allowed"

        async def handle_request(request: Request) -> Response:
            given = request.query_params
            faults = [
                Fault(where=one_line(name), problem=f"is not a parameter of this call; {allowed}")
                for name in given
                if name not in known
            ]
            faults += [
                Fault(where=name, problem="is given more than once; it has one value")
                for name, is_repeatable in known.items()
                if not is_repeatable and len(given.getlist(name)) > 1
            ]
            faults = faults[:MAX_FAULTS]
            if faults:
                message = "; ".join(f"{fault.where}: {fault.problem}" for fault in faults[:1])
                raise ApiError(HTTPStatus.BAD_REQUEST, message, Faults(faults=faults))
            return await handle(_Request(request.scope, request.receive))

        return handle_request


def _parameters(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    """The names of query parameters, and whether each may be repeated."""
    for parameter in dependant.query_params:
        annotation = parameter.field_info.annotation
        yield parameter.alias, any(get_origin(each) is list for each in (annotation, *get_args(annotation)))
    for each in dependant.dependencies:
        yield from _parameters(each)


class _Id(Convertor[int]):
    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", _Id())
