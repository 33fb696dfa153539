"""The OpenAPI document says what the port has: every call, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import openapi_spec_validator
import pytest
from http_site import HttpSite
from starlette.routing import Route

from appliance.http_api.app import make_app
from appliance.http_api.bounds import http_kind
from appliance.http_api.context import Context
from appliance.http_api.openapi import document
from http_site import text_of


@pytest.mark.parametrize("butler", [True, False])
def test_the_document_has_every_route(tmp_path: Path, butler: bool) -> None:
    """And no call that is not there; a valid document of version 3.1, too."""
    with HttpSite(tmp_path, http=f"butler = {str(butler).lower()}") as site:
        context = Context(site.appliance)
        app = make_app(context, http_kind(context.config))
        context.close()
    served = {
        (method, re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path))
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or ())
        if method != "HEAD"
    }
    found = document(butler=butler)
    described = {(method.upper(), path) for path, item in found["paths"].items() for method in item}
    assert described == served
    openapi_spec_validator.validate(found)


def test_every_call_says_what_it_is(tmp_path: Path) -> None:
    operations = [
        (f"{method} {path}", operation)
        for path, item in document(butler=True)["paths"].items()
        for method, operation in item.items()
    ]
    assert len({one["operationId"] for _, one in operations}) == len(operations)
    for name, operation in operations:
        assert operation["summary"].endswith("."), name
        assert operation["tags"], name


def test_the_port_says_where_the_document_is(tmp_path: Path) -> None:
    """Without a password: it has nothing of this site."""
    with HttpSite(tmp_path, users=("anna",)) as site:
        start = site.ask("GET", "/").json()
        found = site.ask("GET", start["openapi"])
        assert found.headers["content-type"] == "application/json"
        assert found.json() == document(butler=True)


def test_a_wrong_method_is_told_which_there_are(tmp_path: Path) -> None:
    """All of the path, whichever module has them."""
    with HttpSite(tmp_path) as site:
        answer = site.ask("PUT", "/messages")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, POST"
