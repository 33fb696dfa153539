"""Calls to a Qlik Cloud tenant: the bearer token, one answer, and lists over their pages.

Not for: what is asked (cloud.py, cloud_tasks.py) or how tokens are had (cloud_login.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, urlsplit

from appliance.qlik import rows
from appliance.qlik.bodies import Body
from appliance.qlik.cloud_errors import expect_success
from appliance.qlik.cloud_login import TokenSource
from appliance.qlik.cloud_rows import as_object, data_rows
from appliance.qlik.failures import not_sent_yet
from appliance.qlik.server import QlikError, RetryPolicy
from appliance.qlik.transport import Reply, Transport

PAGES_LIMIT = 200


class CloudApi:
    """Requests to one tenant. Thread-safe; paths begin with ``/api/``."""

    def __init__(self, transport: Transport, tokens: TokenSource) -> None:
        self.transport = transport
        self._tokens = tokens

    def get(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        accept: str = "",
        keep_last: int | None = None,
    ) -> Reply:
        """A call that changes nothing: with a token that ended it is made once more.

        Args:
            path: on the tenant.
            params: the query.
            accept: the type of the answer, if it is not JSON.
            keep_last: as for ``Transport.call``.

        Raises:
            QlikError: no answer, or one that is no success.
        """
        for last in (False, True):
            token = self._tokens.token()
            reply = self.transport.call(
                "GET",
                path,
                params=params,
                headers=_headers(token, accept),
                keep_last=keep_last,
            )
            if reply.status != 401 or not self._tokens.refused(token) or last:
                break
        expect_success(reply)
        return reply

    def post(self, path: str, body: object, params: Mapping[str, str] | None = None) -> Reply:
        """One POST, never repeated; its answer may have any status.

        Raises:
            QlikError: no answer, or the sign-in had ended.
        """
        return self.send("POST", path, params=params, json_body=body)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json_body: object = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One call that changes something, never repeated; its answer may have any status.

        Args:
            method: POST, PUT, PATCH or DELETE; HEAD, which changes nothing.
            path: on the tenant.
            params: the query.
            json_body: is sent as JSON, if it is not ``None``.
            body: is sent instead.
            headers: beside those of every call.

        Raises:
            QlikError: no answer, or the sign-in had ended.
            OSError: the body's file can't be read.
        """
        with not_sent_yet():
            token = self._tokens.token()
        reply = self.transport.call(
            method,
            path,
            params=params,
            headers={**_headers(token), **(headers or {})},
            json_body=json_body,
            body=body,
        )
        if reply.status == 401 and self._tokens.refused(token):
            raise QlikError(
                "The sign-in had ended. The appliance signs in again and repeats the call.",
                where=reply.where,
                label="signed out",
                retry=RetryPolicy.SAFE,
            )
        return reply

    def pages(
        self, path: str, params: Mapping[str, str], *, limit: int = PAGES_LIMIT
    ) -> Iterator[rows.Row]:
        """The rows of a list over all its pages, at most ``limit`` of them."""
        asked = dict(params)
        seen = [asked]
        for _ in range(limit):
            reply = self.get(path, asked)
            yield from data_rows(reply)
            query = _next_query(as_object(reply))
            asked = {**asked, **query}
            if not query or asked in seen:
                return
            seen.append(asked)


def _next_query(answer: rows.Row) -> dict[str, str]:
    """The query of the link to the next page; empty if there is none, or it can't be read.

    Only the query is used: our token goes to no other address than ours.
    """
    following = rows.text(rows.inner(rows.inner(answer, "links"), "next"), "href")
    try:
        return dict(parse_qsl(urlsplit(following).query))
    except ValueError:
        return {}


def _headers(token: str, accept: str = "") -> dict[str, str]:
    headers = {"Authorization": f"Bearer {token}"}
    if accept:
        headers["Accept"] = accept
    return headers
