"""The data files of the simulated Qlik Cloud: spaces, limits, folders, temporary contents.

Source of the shapes: docs/qlik.md, "Data files of Qlik Cloud". What is sent stays in memory. Not
for: signing in (cloud.py).
"""

from __future__ import annotations

import fnmatch
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from appliance.qlik.simulated.cloud_rows import Row, error, page
from appliance.qlik.simulated.messages import Answer, Request, date, json_answer
from appliance.qlik.simulated.site import Site

FILES = "/api/v1/data-files"
TEMPORARY = "/api/v1/temp-contents"
SPACES = "/api/v1/spaces"
BODY_LIMIT = 512 * 1024 * 1024
"""Bytes of a body with a file."""
_ID = "([^/]+)"
_BOUNDARY = re.compile(r'multipart/form-data;.*boundary="?([^";]+)"?', re.IGNORECASE)
_DEEPEST = 10


def takes_files(path: str) -> bool:
    """Whether a request of this path may have a long body."""
    return path.startswith((FILES, TEMPORARY))


@dataclass
class SimulatedSpace:
    """A space that the user may see."""

    name: str
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    kind: str = "shared"
    roles: tuple[str, ...] = ("codeveloper",)
    may_write: bool = True
    connection_id: str = field(default_factory=lambda: f"connection-{secrets.token_hex(8)}")


@dataclass
class SimulatedFile:
    """A data file or a folder."""

    id: str
    space_id: str
    path: str
    content: bytes
    created_ns: int
    modified_ns: int
    is_folder: bool = False
    puts: int = 1
    """How often its content was sent."""


class SimulatedDataFiles:
    """Answers requests about data files. Tests set its attributes; guarded by the site's lock."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.spaces: dict[str, SimulatedSpace] = {}
        self.files: dict[str, SimulatedFile] = {}
        self.temporary: dict[str, bytes] = {}
        self.takes_pieces = True
        """Whether temporary contents may come piece by piece."""
        self._lengths: dict[str, int] = {}
        """Of temporary contents that come piece by piece."""
        self.max_file = 524_288_000
        self.max_large_file = 6_442_450_944
        self.max_all = 53_687_091_200
        self.endings = ["csv", "txt", "json", "parquet", "qvd", "xlsx"]
        self.locked: set[str] = set()
        """Paths of files that something else reads or writes."""
        self.page_size = 1000
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [
            ("GET", re.compile(SPACES), self._list_spaces),
            ("GET", re.compile(f"{SPACES}/{_ID}"), self._one_space),
            ("GET", re.compile(f"{FILES}/connections"), self._connections),
            ("GET", re.compile(f"{FILES}/quotas"), self._quotas),
            ("GET", re.compile(FILES), self._list),
            ("POST", re.compile(FILES), self._post),
            ("GET", re.compile(f"{FILES}/{_ID}"), self._one),
            ("PUT", re.compile(f"{FILES}/{_ID}"), self._put),
            ("DELETE", re.compile(f"{FILES}/{_ID}"), self._delete),
            ("POST", re.compile(TEMPORARY), self._post_temporary),
            ("POST", re.compile(f"{TEMPORARY}/files"), self._begin_pieces),
            ("PATCH", re.compile(f"{TEMPORARY}/files/{_ID}"), self._take_piece),
            ("GET", re.compile(f"{TEMPORARY}/files/{_ID}"), self._tell_pieces),
        ]

    def add_space(self, name: str, **settings: object) -> SimulatedSpace:
        """Add a space; the settings are the fields of ``SimulatedSpace``."""
        space = SimulatedSpace(name, **settings)  # type: ignore[arg-type]  # checked by its readers
        self.spaces[space.id] = space
        return space

    def contents(self, space: SimulatedSpace | None = None) -> dict[str, bytes]:
        """The files of a space (or the personal one) by their names, folders left out."""
        space_id = "" if space is None else space.id
        with self.site.lock:
            return {
                one.path: one.content
                for one in self.files.values()
                if one.space_id == space_id and not one.is_folder
            }

    def answer(self, request: Request) -> Answer | None:
        """The answer to a request about data files; ``None``: it is about something else."""
        for method, pattern, respond in self._routes:
            match = pattern.fullmatch(request.path)
            if match is not None and method == request.method:
                return respond(request, *match.groups())
        return None

    # --- spaces and limits ---------------------------------------------------------------------

    @staticmethod
    def _space_row(space: SimulatedSpace) -> Row:
        return {
            "id": space.id,
            "name": space.name,
            "type": space.kind,
            "ownerId": "simulated-owner",
            "tenantId": "simulated-tenant",
            "meta": {"actions": ["read"], "roles": list(space.roles), "assignableRoles": []},
        }

    def _list_spaces(self, request: Request) -> Answer:
        wanted = request.query.get("name", "").casefold()
        rows = [
            self._space_row(one) for one in self.spaces.values() if wanted in one.name.casefold()
        ]
        return page(request, rows, cursor="next", limit=int(request.query.get("limit") or 10))

    def _one_space(self, _request: Request, space_id: str) -> Answer:
        if space_id not in self.spaces:
            return error(404, "HTTP-404", "Not found")
        return json_answer(self._space_row(self.spaces[space_id]))

    def _connections(self, request: Request) -> Answer:
        wanted = request.query.get("spaceid")
        if wanted and wanted not in self.spaces:
            return error(403, "DF-009", "Space not found", "The specified space cannot be found")
        rows: list[Row] = [
            {
                "id": one.connection_id,
                "name": "DataFiles",
                "type": "qix-datafiles.exe",
                "spaceId": one.id,
                "connectStatement": "CUSTOM CONNECT TO ...",
            }
            for one in self.spaces.values()
            if wanted in {None, "", one.id}
        ]
        return page(request, rows, cursor="page", limit=int(request.query.get("limit") or 20))

    def _quotas(self, _request: Request) -> Answer:
        used = sum(len(one.content) for one in self.files.values())
        return json_answer(
            {
                "allowedExtensions": self.endings,
                "allowedInternalExtensions": [],
                "maxFileSize": self.max_file,
                "maxLargeFileSize": self.max_large_file,
                "maxSize": self.max_all,
                "size": used,
            }
        )

    # --- files ---------------------------------------------------------------------------------

    def _row(self, one: SimulatedFile) -> Row:
        folder, _, base = one.path.rpartition("/")
        parent = self._at(one.space_id, folder) if folder else None
        return {
            "id": one.id,
            "name": one.path,
            "baseName": base,
            "folder": one.is_folder,
            "folderId": None if parent is None else parent.id,
            "folderPath": folder or None,
            "size": len(one.content),
            "spaceId": one.space_id or None,
            "ownerId": "simulated-user",
            "createdDate": date(one.created_ns),
            "modifiedDate": date(one.modified_ns),
            "contentUpdatedDate": date(one.modified_ns),
            "actions": ["read", "update", "delete"],
        }

    def _at(self, space_id: str, path: str) -> SimulatedFile | None:
        for one in self.files.values():
            if one.space_id == space_id and one.path.casefold() == path.casefold():
                return one
        return None

    def _space_of(self, connection_id: str) -> SimulatedSpace | Answer | None:
        """The space of a connection; ``None``: the personal one."""
        if not connection_id:
            return None
        for one in self.spaces.values():
            if one.connection_id == connection_id:
                return one
        return error(400, "DF-014", "Connection not found", "The connection cannot be found")

    def _list(self, request: Request) -> Answer:
        query = request.query
        limit = query.get("limit") or "20"
        if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
            return error(400, "HTTP-400", "Bad request", "limit must be 1 to 1000")
        space = self._space_of(query.get("connectionid", ""))
        if isinstance(space, Answer):
            return space
        space_id = "" if space is None else space.id
        folder = query.get("folderpath", "")
        if folder:
            parent = self._at(space_id, folder)
            if parent is None or not parent.is_folder:
                return error(400, "DF-005", "Folder not found", "The parent folder is missing")
        rows = [
            self._row(one)
            for one in sorted(self.files.values(), key=lambda one: one.path)
            if one.space_id == space_id and self._is_listed(one, folder, query)
        ]
        return page(request, rows, cursor="page", limit=min(int(limit), self.page_size))

    @staticmethod
    def _is_listed(one: SimulatedFile, folder: str, query: Mapping[str, str]) -> bool:
        if one.is_folder and query.get("includefolders") != "true":
            return False
        above, _, base = one.path.rpartition("/")
        is_child = above.casefold() == folder.casefold()
        if query.get("excludesubfolders") == "true" and not is_child:
            return False
        if folder and not is_child and not above.casefold().startswith(f"{folder.casefold()}/"):
            return False
        wildcard = query.get("basenamewildcard", "").replace("[", "[[]")
        if wildcard and not fnmatch.fnmatch(base, wildcard):
            return False
        return query.get("name", one.path) == one.path

    def _one(self, _request: Request, file_id: str) -> Answer:
        if file_id not in self.files:
            return error(404, "HTTP-404", "Not found")
        return json_answer(self._row(self.files[file_id]))

    def _post(self, request: Request) -> Answer:
        given = self._given(request)
        if isinstance(given, Answer):
            return given
        fields, space, path, content = given
        space_id = "" if space is None else space.id
        if self._at(space_id, path) is not None:
            return error(409, "HTTP-409", "Conflict", f"{path} exists")
        self._make_folders(space_id, path)
        now = self.site.now()
        is_folder = fields.get("folder") is True
        made = SimulatedFile(secrets.token_hex(16), space_id, path, content, now, now, is_folder)
        self.files[made.id] = made
        return json_answer(self._row(made), 201)

    def _put(self, request: Request, file_id: str) -> Answer:
        known = self.files.get(file_id)
        if known is None:
            return error(404, "HTTP-404", "Not found")
        given = self._given(request)
        if isinstance(given, Answer):
            return given
        _fields, space, path, content = given
        space_id = "" if space is None else space.id
        other = self._at(space_id, path)
        if other is not None and other is not known:
            return error(409, "HTTP-409", "Conflict", f"{path} exists")
        if known.path in self.locked:
            return error(423, "DF-025", "Locked", "The target file is already locked")
        self._make_folders(space_id, path)
        known.space_id, known.path, known.content = space_id, path, content
        known.modified_ns = self.site.now()
        known.puts += 1
        return json_answer(self._row(known), 201)

    def _make_folders(self, space_id: str, path: str) -> None:
        now = self.site.now()
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            above = "/".join(parts[:count])
            if self._at(space_id, above) is None:
                made = SimulatedFile(secrets.token_hex(16), space_id, above, b"", now, now, True)
                self.files[made.id] = made

    def _given(
        self, request: Request
    ) -> tuple[dict[str, object], SimulatedSpace | None, str, bytes] | Answer:
        """What a POST or PUT says: fields, space, path and content, or why it is refused."""
        parts = _parts(request)
        try:
            fields = msgspec.json.decode(parts["Json"])
        except (KeyError, ValueError, RecursionError):
            return error(400, "HTTP-400", "Bad request", "part Json can't be read")
        if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
            return error(400, "HTTP-400", "Bad request", "name is needed")
        space = self._space_of(str(fields.get("connectionId") or ""))
        if isinstance(space, Answer):
            return space
        if space is not None and not space.may_write:
            return error(403, "DF-013", "Forbidden", "Access to the specified space is forbidden")
        path = str(fields["name"])
        if folder_id := fields.get("folderId"):
            folder = self.files.get(str(folder_id))
            if folder is None or not folder.is_folder:
                return error(400, "DF-005", "Folder not found", "The parent folder is missing")
            path = f"{folder.path}/{path}"
        if problem := self._name_problem(path, is_folder=fields.get("folder") is True):
            return problem
        if path in self.locked:
            return error(423, "DF-025", "Locked", "The target file is already locked")
        if fields.get("folder") is True:
            return fields, space, path, b""
        if temporary := fields.get("tempContentFileId"):
            content = self.temporary.get(str(temporary), b"")
            if self._lengths.get(str(temporary), len(content)) != len(content):
                return error(400, "DF-012", "Not found", "The temporary content is not whole")
            if temporary not in self.temporary:
                return error(400, "DF-012", "Not found", "The temporary content is missing")
            return fields, space, path, self.temporary.pop(str(temporary))
        if "File" not in parts:
            return error(400, "HTTP-400", "Bad request", "part File is needed")
        if len(parts["File"]) > self.max_file:
            return error(413, "HTTP-413", "Too large", "The file is too large")
        used = sum(len(one.content) for one in self.files.values())
        if used + len(parts["File"]) > self.max_all:
            return error(403, "DF-016", "Forbidden", "The quota has been exceeded")
        return fields, space, path, parts["File"]

    def _name_problem(self, path: str, *, is_folder: bool) -> Answer | None:
        parts = path.split("/")
        if any(part in {"", ".", ".."} for part in parts):
            return error(400, "DF-015", "Bad name", "The filename must be in canonical form")
        if len(parts) > _DEEPEST:
            return error(400, "DF-026", "Too deep", "The folder hierarchy is too deep")
        if is_folder:
            return None
        _, dot, ending = parts[-1].rpartition(".")
        if not dot:
            return error(400, "DF-011", "No extension", "The file name has no extension")
        if ending.lower() not in self.endings:
            return error(400, "DF-010", "Bad extension", "The file extension is not allowed")
        return None

    def _delete(self, _request: Request, file_id: str) -> Answer:
        known = self.files.pop(file_id, None)
        if known is None:
            return error(404, "HTTP-404", "Not found")
        below = f"{known.path}/"
        for one in list(self.files.values()):
            if one.space_id == known.space_id and one.path.startswith(below):
                del self.files[one.id]
        return Answer(204)

    def _begin_pieces(self, request: Request) -> Answer:
        length = request.headers.get("upload-length", "")
        if not self.takes_pieces:
            return _none()
        if request.headers.get("tus-resumable") != "1.0.0" or not length.isdecimal():
            return error(412, "HTTP-412", "Precondition failed")
        if int(length) > self.max_large_file:
            return error(413, "HTTP-413", "Too large", "The file is too large")
        made = secrets.token_hex(16)
        self.temporary[made], self._lengths[made] = b"", int(length)
        return Answer(201, headers={"Location": f"{TEMPORARY}/files/{made}"})

    def _take_piece(self, request: Request, made: str) -> Answer:
        if made not in self._lengths:
            return _none()
        if request.headers.get("upload-offset") != str(len(self.temporary[made])):
            return error(409, "HTTP-409", "Conflict", "Upload-Offset is another one")
        self.temporary[made] += request.body
        return Answer(204, headers={"Upload-Offset": str(len(self.temporary[made]))})

    def _tell_pieces(self, _request: Request, made: str) -> Answer:
        if made not in self._lengths:
            return _none()
        return Answer(200, headers={"Upload-Offset": str(len(self.temporary[made]))})

    def _post_temporary(self, request: Request) -> Answer:
        ttl = request.query.get("ttl") or "3600"
        if not request.query.get("filename") or not ttl.isdecimal() or int(ttl) > 259_200:
            return error(400, "HTTP-400", "Bad request", "filename or ttl")
        if len(request.body) > self.max_large_file:
            return error(413, "HTTP-413", "Too large", "The file is too large")
        made = secrets.token_hex(16)
        self.temporary[made] = request.body
        return Answer(201, headers={"Location": f"{TEMPORARY}/{made}"})


def _none() -> Answer:
    return error(404, "HTTP-404", "Not found")


def _parts(request: Request) -> dict[str, bytes]:
    """The parts of a form by their names; empty if it is none."""
    match = _BOUNDARY.fullmatch(request.headers.get("content-type", ""))
    if match is None:
        return {}
    found: dict[str, bytes] = {}
    for part in (b"\r\n" + request.body).split(b"\r\n--" + match[1].encode())[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        if name is not None:
            found[name[1].decode("utf-8", "replace")] = content
    return found
