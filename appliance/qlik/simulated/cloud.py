"""The calls of Qlik Cloud that the appliance uses, answered by the simulated server.

Each simulated task is an app that can be reloaded (by its ``app_id``) and a Qlik Cloud task (by its
``id``). Source of the shapes: docs/qlik.md, "Qlik Cloud". Not for: what tasks do (site.py).
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Sequence

import msgspec

from appliance.qlik.simulated.cloud_rows import Origin, Origins, error, log_of, page, reload_row
from appliance.qlik.simulated.cloud_tasks import CloudTasks
from appliance.qlik.simulated.data_files import SimulatedDataFiles
from appliance.qlik.simulated.messages import Answer, Request, date, json_answer, text_answer
from appliance.qlik.simulated.site import ZERO_ID, Run, SimulatedTask, Site

_ID = "([^/]+)"
_FILTER = re.compile(r'(?P<field>status|type) eq "(?P<value>[^"]*)"')
_VARIABLES_LIMIT, _VARIABLE_LENGTH = 20, 256


class Cloud:
    """Answers requests below ``/api/`` and ``/oauth/``."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.api_key = "simulated-api-key"
        self.client_id = "simulated-client"
        self.client_secret = "simulated-secret"  # noqa: S105  # of the simulated server
        self.token_lifetime_s = 21600.0
        self.tokens_issued = 0
        self.page_size = 100
        """The largest page that a list answers with."""
        self.is_administrator = False
        """Whether the user sees the reloads of all apps."""
        self.origins = Origins()
        self.tasks = CloudTasks(site, self.origins)
        self.data_files = SimulatedDataFiles(site)
        self._tokens: dict[str, int] = {}
        self._lock = threading.Lock()
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [
            ("GET", re.compile("/api/v1/users/me"), self._me),
            ("GET", re.compile(f"/api/v1/users/{_ID}"), self._user),
            ("GET", re.compile(f"/api/v1/apps/{_ID}"), self._app),
            ("GET", re.compile("/api/v1/items"), self._items),
            ("POST", re.compile("/api/v1/reloads"), self._reload),
            ("GET", re.compile("/api/v1/reloads"), self._reloads),
            ("GET", re.compile(f"/api/v1/reloads/{_ID}"), self._one_reload),
            ("POST", re.compile(f"/api/v1/reloads/{_ID}/actions/cancel"), self._cancel),
            ("GET", re.compile(f"/api/v1/apps/{_ID}/reloads/logs/{_ID}"), self._log),
        ]

    def forget_tokens(self) -> None:
        """Make every OAuth token that was issued invalid."""
        with self._lock:
            self._tokens.clear()

    @staticmethod
    def app_of(request: Request) -> str:
        """The app that a reload request names, in lower case."""
        try:
            body = msgspec.json.decode(request.body)
        except (ValueError, RecursionError):
            return ""
        return str(body.get("appId", "")).lower() if isinstance(body, dict) else ""

    def answer(self, request: Request) -> Answer:
        if request.path == "/oauth/token" and request.method == "POST":
            return self._token(request)
        if not self._signed_in(request):
            return error(401, "HTTP-401", "Unauthorized")
        with self.site.lock:
            found = self.tasks.answer(request) or self.data_files.answer(request)
        if found is not None:
            return found
        for method, pattern, respond in self._routes:
            match = pattern.fullmatch(request.path)
            if match is not None and method == request.method:
                with self.site.lock:
                    return respond(request, *match.groups())
        return error(404, "HTTP-404", "Not found")

    def _token(self, request: Request) -> Answer:
        try:
            body = msgspec.json.decode(request.body, type=dict[str, str])
        except (ValueError, RecursionError):
            return error(400, "HTTP-400", "Bad request")
        wanted = ("client_credentials", self.client_id, self.client_secret)
        if (body.get("grant_type"), body.get("client_id"), body.get("client_secret")) != wanted:
            return json_answer({"error": "invalid_client"}, 401)
        token = secrets.token_hex(16)
        now = self.site.now()
        with self._lock:
            self._tokens = {key: end for key, end in self._tokens.items() if end > now}
            self._tokens[token] = now + int(self.token_lifetime_s * 1e9)
            self.tokens_issued += 1
        return json_answer(
            {
                "access_token": token,
                "token_type": "bearer",
                "expires_at": date(now + int(self.token_lifetime_s * 1e9)),
                "expires_in": int(self.token_lifetime_s),
            }
        )

    def _signed_in(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        with self._lock:
            return given == self.api_key or self._tokens.get(given, 0) > self.site.now()

    def _me(self, _request: Request) -> Answer:
        return json_answer({"id": "simulated-user", "name": "Simulated user", "status": "active"})

    def _user(self, _request: Request, user_id: str) -> Answer:
        user = self.site.users.get(user_id)
        if user is None:
            return error(404, "HTTP-404", "Not found")
        row = {"id": user.id, "name": user.name, "status": "active", "subject": user.user_id}
        return json_answer({**row, "email": user.emails[0]} if user.emails else row)

    def _app(self, _request: Request, app_id: str) -> Answer:
        task = self._by_app(app_id)
        if task is None:
            return error(404, "HTTP-404", "Not found")
        owner = self.site.owner_of(app_id)
        attributes = {"id": task.app_id, "name": task.app_name, "ownerId": owner.id}
        return json_answer({"attributes": attributes, "privileges": ["read"]})

    def _items(self, request: Request) -> Answer:
        rows: list[dict[str, object]] = [
            {
                "id": f"item-{task.app_id}",
                "name": task.app_name,
                "resourceId": task.app_id,
                "resourceType": "app",
                "actions": ["read", "update", "reload"] if task.enabled else ["read"],
                "resourceReloadStatus": "",
                "meta": {"tags": [{"id": tag, "name": tag} for tag in task.tags]},
            }
            for task in self._apps()
        ]
        return self._page(request, rows)

    def _page(self, request: Request, rows: Sequence[dict[str, object]]) -> Answer:
        limit = min(int(request.query.get("limit") or 10), self.page_size)
        return page(request, rows, cursor="next", limit=limit)

    def _apps(self) -> list[SimulatedTask]:
        """One task for each app."""
        apps = {task.app_id.lower(): task for task in reversed(self.site.tasks.values())}
        return [task for app_id, task in reversed(apps.items()) if app_id]

    def _by_app(self, app_id: str) -> SimulatedTask | None:
        for task in self._apps():
            if task.app_id.lower() == app_id.lower():
                return task
        return None

    def _reload(self, request: Request) -> Answer:
        task = self._by_app(self.app_of(request))
        if task is None or task.app_id.lower() in self.tasks.without_rights:
            # As for the tasks: a missing app and one without rights are the same answer.
            return error(403, "RELOADS-003", "Forbidden", "The app can not be reloaded by the user")
        body = msgspec.json.decode(request.body)
        variables = body.get("variables") or {}
        if problem := _problem_of(variables):
            return error(400, "RELOADS-002", "Bad request", problem)
        reload_id = self.site.start(task.id)
        if reload_id is None or reload_id == ZERO_ID:
            return error(409, "RELOADS-007", "App can not be reloaded now")
        self.origins.note(
            reload_id, Origin(partial=body.get("partial") is True, variables=variables)
        )
        run = self._run(reload_id)
        assert run is not None
        return json_answer(self._row(run), 201)

    def _row(self, run: Run) -> dict[str, object]:
        return reload_row(run, self.origins.of(run))

    def _run(self, reload_id: str) -> Run | None:
        for run in self.site.runs():
            if run.execution_id == reload_id:
                return run
        return None

    def _one_reload(self, _request: Request, reload_id: str) -> Answer:
        run = self._run(reload_id)
        if run is None:
            return error(404, "RELOADS-004", "Not found")
        return json_answer(self._row(run))

    def _reloads(self, request: Request) -> Answer:
        app_id = request.query.get("appid", "").lower()
        if not app_id and not self.is_administrator:
            return error(403, "RELOADS-003", "Forbidden", "appId is needed")
        rows = [
            self._row(run)
            for run in reversed(self.site.runs())
            if run.task.app_id and app_id in {"", run.task.app_id.lower()}
        ]
        if condition := request.query.get("filter"):
            match = _FILTER.fullmatch(condition)
            if match is None:
                return error(400, "RELOADS-002", "Bad request", "filter can't be read")
            rows = [row for row in rows if row[match["field"]] == match["value"]]
        return self._page(request, rows)

    def _cancel(self, _request: Request, reload_id: str) -> Answer:
        run = self._run(reload_id)
        if run is None:
            return error(404, "RELOADS-004", "Not found")
        if run.over:
            return error(409, "RELOADS-009", "Reload is over")
        self.site.stop(run.task.id)
        return Answer(202)

    def _log(self, _request: Request, app_id: str, reload_id: str) -> Answer:
        run = self._run(reload_id)
        if run is None or run.task.app_id.lower() != app_id.lower() or not run.over:
            return error(404, "HTTP-404", "Not found")
        return text_answer(log_of(run), 200)


def _problem_of(variables: object) -> str:
    if not isinstance(variables, dict) or len(variables) > _VARIABLES_LIMIT:
        return f"variables must be an object with at most {_VARIABLES_LIMIT} names"
    if any(len(str(text)) > _VARIABLE_LENGTH for pair in variables.items() for text in pair):
        return f"a variable has more than {_VARIABLE_LENGTH} characters"
    return ""
