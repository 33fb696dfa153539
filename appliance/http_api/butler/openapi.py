"""What OpenAPI says of one of Butler's calls.

Not for: putting the document together (http_api/openapi.py).
"""

from __future__ import annotations

from collections.abc import Mapping

_ERROR = {
    "type": "object",
    "required": ["statusCode", "error", "message"],
    "properties": {
        "statusCode": {"type": "integer"},
        "code": {"type": "string"},
        "error": {"type": "string"},
        "message": {"type": "string"},
    },
}


def call(
    summary: str,
    schema: Mapping[str, object] | None = None,
    *,
    status: int = 200,
    path: str = "",
    query: Mapping[str, Mapping[str, object]] | None = None,
    optional_query: Mapping[str, Mapping[str, object]] | None = None,
    body: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """The operation object of a call (OpenAPI 3.1).

    Args:
        summary: what it does, a sentence.
        schema: of its answer; ``None``: an answer without a body.
        status: of its answer.
        path: its path, whose parameters are texts.
        query: the schemas of the query parameters that it needs.
        optional_query: the schemas of those that may be left out.
        body: the schema of the request's body.
    """
    parameters: list[dict[str, object]] = [
        {"name": name.strip("{}"), "in": "path", "required": True, "schema": {"type": "string"}}
        for name in path.split("/")
        if name.startswith("{")
    ]
    for names, is_required in ((query, True), (optional_query, False)):
        parameters += [
            {"name": name, "in": "query", "required": is_required, "schema": each}
            for name, each in (names or {}).items()
        ]
    good: dict[str, object] = {"description": "Done."}
    if schema is not None:
        good["content"] = {"application/json": {"schema": schema}}
    error = {"description": "Not done.", "content": {"application/json": {"schema": _ERROR}}}
    found: dict[str, object] = {
        "summary": summary,
        "tags": ["butler"],
        "responses": {str(status): good, "default": error},
    }
    if parameters:
        found["parameters"] = parameters
    if body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return found
