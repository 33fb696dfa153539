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

from appliance.qlik.simulated.messages import Answer, Request, date, json_answer, text_answer
from appliance.qlik.simulated.site import ZERO_ID, Run, SimulatedTask, Site, Status

_STATUS = {
    Status.TRIGGERED: "QUEUED",
    Status.QUEUED: "QUEUED",
    Status.STARTED: "RELOADING",
    Status.ABORT_INITIATED: "CANCELING",
    Status.SUCCESS: "SUCCEEDED",
    Status.FAIL: "FAILED",
    Status.ERROR: "FAILED",
    Status.ABORTED: "CANCELED",
    Status.SKIPPED: "CANCELED",
    Status.RESET: "CANCELED",
}
_RUN_STATUS = {"SUCCEEDED": "SUCCEEDED", "FAILED": "FAILED", "CANCELED": "FAILED"}
_ID = "([^/]+)"


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
        self._tokens: dict[str, int] = {}
        self._lock = threading.Lock()
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [
            ("GET", re.compile("/api/v1/users/me"), self._me),
            ("GET", re.compile("/api/v1/items"), self._items),
            ("POST", re.compile("/api/v1/reloads"), self._reload),
            ("GET", re.compile("/api/v1/reloads"), self._reloads),
            ("GET", re.compile(f"/api/v1/reloads/{_ID}"), self._one_reload),
            ("POST", re.compile(f"/api/v1/reloads/{_ID}/actions/cancel"), self._cancel),
            ("GET", re.compile(f"/api/v1/apps/{_ID}/reloads/logs/{_ID}"), self._log),
            ("GET", re.compile(f"/api/v1/tasks/{_ID}"), self._task),
            ("POST", re.compile(f"/api/v1/tasks/{_ID}/actions/start"), self._start_task),
            ("GET", re.compile(f"/api/v1/tasks/{_ID}/runs/last"), self._last_run),
            ("GET", re.compile(f"/api/v1/tasks/{_ID}/runs"), self._task_runs),
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
            return _error(401, "HTTP-401", "Unauthorized")
        for method, pattern, respond in self._routes:
            match = pattern.fullmatch(request.path)
            if match is not None and method == request.method:
                with self.site.lock:
                    return respond(request, *match.groups())
        return _error(404, "HTTP-404", "Not found")

    def _token(self, request: Request) -> Answer:
        try:
            body = msgspec.json.decode(request.body, type=dict[str, str])
        except (ValueError, RecursionError):
            return _error(400, "HTTP-400", "Bad request")
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
        first = int(request.query.get("next") or 0)
        limit = min(int(request.query.get("limit") or 10), self.page_size)
        links: dict[str, object] = {"self": {"href": request.path}}
        if first + limit < len(rows):
            host = request.headers.get("host", "")
            query = f"limit={limit}&next={first + limit}"
            if "appid" in request.query:
                query += f"&appId={request.query['appid']}"
            links["next"] = {"href": f"http://{host}{request.path}?{query}"}
        return json_answer({"data": rows[first : first + limit], "links": links})

    def _apps(self) -> list[SimulatedTask]:
        return [task for task in self.site.tasks.values() if task.app_id]

    def _by_app(self, app_id: str) -> SimulatedTask | None:
        for task in self._apps():
            if task.app_id.lower() == app_id.lower():
                return task
        return None

    def _reload(self, request: Request) -> Answer:
        task = self._by_app(self.app_of(request))
        if task is None:
            return _error(404, "RELOADS-004", "Not found")
        reload_id = self.site.start(task.id)
        if reload_id is None or reload_id == ZERO_ID:
            return _error(409, "RELOADS-007", "App can not be reloaded now")
        run = self._run(reload_id)
        assert run is not None
        return json_answer(_reload_row(run), 201)

    def _run(self, reload_id: str) -> Run | None:
        for run in self.site.runs():
            if run.execution_id == reload_id:
                return run
        return None

    def _one_reload(self, _request: Request, reload_id: str) -> Answer:
        run = self._run(reload_id)
        if run is None:
            return _error(404, "RELOADS-004", "Not found")
        return json_answer(_reload_row(run))

    def _reloads(self, request: Request) -> Answer:
        app_id = request.query.get("appid", "").lower()
        if not app_id:
            return _error(403, "RELOADS-003", "Forbidden", "appId is needed")
        rows = [
            _reload_row(run)
            for run in reversed(self.site.runs())
            if run.task.app_id.lower() == app_id
        ]
        return self._page(request, rows)

    def _cancel(self, _request: Request, reload_id: str) -> Answer:
        run = self._run(reload_id)
        if run is None:
            return _error(404, "RELOADS-004", "Not found")
        if run.over:
            return _error(409, "RELOADS-009", "Reload is over")
        self.site.stop(run.task.id)
        return Answer(202)

    def _log(self, _request: Request, app_id: str, reload_id: str) -> Answer:
        run = self._run(reload_id)
        if run is None or run.task.app_id.lower() != app_id.lower() or not run.over:
            return _error(404, "HTTP-404", "Not found")
        lines = run.task.log or ("Execution started.", run.task.error_text, "Execution ended.")
        return text_answer("\n".join(lines) + "\n", 200)

    def _task(self, _request: Request, task_id: str) -> Answer:
        task = self.site.tasks.get(task_id.lower())
        if task is None:
            return _error(404, "HTTP-404", "Not found")
        return json_answer({"id": task.id, "name": task.name, "enabled": task.enabled})

    def _start_task(self, _request: Request, task_id: str) -> Answer:
        execution_id = self.site.start(task_id)
        if execution_id is None:
            return _error(404, "HTTP-404", "Not found")
        if execution_id == ZERO_ID:
            return _error(409, "HTTP-409", "Task can not be started")
        return json_answer({"message": "Task started"})

    def _task_runs(self, request: Request, task_id: str) -> Answer:
        rows = [
            _run_row(run)
            for run in reversed(self.site.runs())
            if run.task.id.lower() == task_id.lower()
        ]
        return self._page(request, rows)

    def _last_run(self, _request: Request, task_id: str) -> Answer:
        for run in reversed(self.site.runs()):
            if run.task.id.lower() == task_id.lower():
                return json_answer(_run_row(run))
        return _error(404, "HTTP-404", "Not found")


def _reload_row(run: Run) -> dict[str, object]:
    attempt = run.attempt
    status = "EXCEEDED_LIMIT" if run.abort_reason == 2 and run.over else _STATUS[attempt.status]
    row: dict[str, object] = {
        "id": run.execution_id,
        "appId": run.task.app_id,
        "tenantId": "simulated-tenant",
        "userId": "simulated-user",
        "type": "external",
        "status": status,
        "partial": False,
        "weight": 1,
        "creationTime": date(run.created_ns),
    }
    if attempt.started_ns is not None:
        row["startTime"] = date(attempt.started_ns)
    if attempt.stopped_ns is not None:
        row["endTime"] = date(attempt.stopped_ns)
    if status == "FAILED":
        row["errorCode"] = "EngineErrorCode::INTERNAL"
        row["errorMessage"] = run.task.error_text
    return row


def _run_row(run: Run) -> dict[str, object]:
    row = _reload_row(run)
    return {
        "id": f"run-{run.execution_id}",
        "taskId": run.task.id,
        "resourceId": run.task.app_id,
        "status": _RUN_STATUS.get(str(row["status"]), "RUNNING"),
        "startedAt": row.get("startTime") or row["creationTime"],
        "endedAt": row.get("endTime"),
        "triggeredBy": "simulated-user",
        "executedAs": "simulated-user",
        "workerId": run.execution_id,
        "workerType": "reload",
    }


def _error(status: int, code: str, title: str, detail: str = "") -> Answer:
    return json_answer(
        {"errors": [{"code": code, "title": title, "detail": detail or title}]}, status
    )
