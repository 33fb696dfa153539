"""The data files of a Qlik Cloud tenant: spaces, limits, looking for files, putting them there.

Source: qlik.dev, "Data files", "Temporary contents" and "Spaces" (docs/qlik.md, "Data files of Qlik
Cloud"). A file is read while it is sent. Nothing is repeated here. Not for: which files go where,
and when (recorders/uploads.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO
from urllib.parse import quote

import msgspec

from appliance.qlik import bodies, rows, temporary_contents
from appliance.qlik.cloud_api import CloudApi
from appliance.qlik.cloud_errors import NO_FILE_RIGHT, expect_success
from appliance.qlik.cloud_rows import as_object, data_rows
from appliance.qlik.failures import StatusError
from appliance.qlik.server import QlikError, RetryPolicy
from appliance.qlik.transport import Reply

_FILES = "/api/v1/data-files"
_SPACES = "/api/v1/spaces"
_CONNECTION_TYPE = "qix-datafiles.exe"
_PAGE = "1000"
_SPACES_PAGE = "100"
_LIMITS_KEPT_S = 300.0
_READING_ROLES = frozenset({"basicconsumer", "consumer", "dataconsumer", "datapreview"})
"""Roles in a space that read, and change nothing."""
_GONE = frozenset({400, 403, 404})
_TAKEN = 409


class Place(msgspec.Struct, frozen=True):
    """A space; without an id the personal one of the signed-in user."""

    space_id: str = ""
    name: str = ""
    connection_id: str = ""
    """Of the space's data files; none for the personal space."""
    roles: tuple[str, ...] = ()
    """Of the signed-in user in the space, if the tenant says so."""

    @property
    def shown(self) -> str:
        return f'the space "{self.name}"' if self.name else "the personal space"

    @property
    def is_read_only(self) -> bool:
        """Whether the roles are known, and none of them changes data files."""
        return bool(self.roles) and _READING_ROLES.issuperset(self.roles)


class DataFile(msgspec.Struct, frozen=True):
    """A file of a tenant."""

    id: str
    name: str
    """With its folder, ``/`` in between."""
    size: int
    folder_id: str = ""
    modified_ns: int | None = None


class Limits(msgspec.Struct, frozen=True):
    """What a tenant takes of the signed-in user; 0 is no limit that is known. Bytes."""

    max_file: int = 0
    max_large_file: int = 0
    """Of a file that goes by the temporary contents."""
    max_all: int = 0
    used: int = 0
    endings: frozenset[str] = frozenset()
    """In lower case, without a dot; empty: not known."""

    def name_problem(self, name: str) -> str:
        """Why the tenant would refuse files of such a name, in words; empty if it would not."""
        ending = name.rpartition("/")[2].rpartition(".")[2].lower()
        if self.endings and ending not in self.endings:
            return (
                f"The tenant takes no .{ending} files, only {', '.join(sorted(self.endings))}. Use"
                " another `format`, or none of `compression`."
            )
        return ""

    def size_problem(self, size: int) -> str:
        """The same for a file of so many bytes."""
        most = max(self.max_file, self.max_large_file)
        if most and size > most:
            return f"The file has {size} bytes; the tenant takes at most {most}. Lower `rotate`."
        return ""


class DataFiles:
    """The data files that the signed-in user may see. Thread-safe."""

    def __init__(
        self, api: CloudApi, label: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is sent.

        Args:
            api: calls the tenant.
            label: the tenant, for people.
            clock: seconds that only grow.
        """
        self.label = label
        self._api = api
        self._clock = clock
        self._lock = threading.Lock()
        self._limits = Limits()
        self._limits_until_s = 0.0

    def close(self) -> None:
        """Close every connection; calls under way end with a ``QlikError``."""
        self._api.transport.close()

    def server_time_ns(self, own_ns: int) -> int:
        """A local time as the tenant's clock showed it; that is known after the first call."""
        return self._api.transport.server_time_ns(own_ns)

    # --- where ---------------------------------------------------------------------------------

    def place(self, space: str) -> Place:
        """A space by its name or id, or, for an empty text, the personal one.

        Raises:
            QlikError: there is none that the user may see, or there is no answer.
        """
        if not space:
            return Place()
        found = self._space(space)
        space_id = rows.text(found, "id")
        reply = self._api.get(f"{_FILES}/connections", {"spaceId": space_id})
        for row in data_rows(reply):
            if rows.text(row, "type") in {_CONNECTION_TYPE, ""} and rows.text(row, "id"):
                roles = rows.inner(found, "meta").get("roles")
                return Place(
                    space_id,
                    rows.text(found, "name") or space,
                    rows.text(row, "id"),
                    tuple(one for one in roles if isinstance(one, str))
                    if isinstance(roles, list)
                    else (),
                )
        raise _refused(f'The data files of the space "{space}" are closed. {NO_FILE_RIGHT}.', reply)

    def _space(self, space: str) -> rows.Row:
        query = {"name": space, "limit": _SPACES_PAGE}
        found = list(self._api.pages(_SPACES, query))
        exact = [row for row in found if rows.text(row, "name") == space]
        alike = [row for row in found if rows.text(row, "name").casefold() == space.casefold()]
        if len(exact) == 1 or len(alike) == 1:
            return (exact or alike)[0]
        try:
            reply = self._api.get(f"{_SPACES}/{quote(space, safe='')}")
        except StatusError as error:
            if error.status not in _GONE:
                raise
            raise QlikError(
                f'There is no space "{space}" that [qlik] may see. Check the name, and add the user'
                " or OAuth client of [qlik] to the space.",
                where=f"GET {self._api.transport.base_url}{_SPACES}",
                label="no space",
                retry=RetryPolicy.NEVER,
                is_answered=True,
            ) from None
        return as_object(reply)

    def limits(self) -> Limits:
        """The tenant's limits, at most some minutes old.

        Raises:
            QlikError: they can't be had.
        """
        with self._lock:
            if self._clock() < self._limits_until_s:
                return self._limits
        answer = as_object(self._api.get(f"{_FILES}/quotas"))
        endings = answer.get("allowedExtensions")
        found = Limits(
            rows.number(answer, "maxFileSize"),
            rows.number(answer, "maxLargeFileSize"),
            rows.number(answer, "maxSize"),
            rows.number(answer, "size"),
            frozenset(one.lower().lstrip(".") for one in endings if isinstance(one, str))
            if isinstance(endings, list)
            else frozenset(),
        )
        with self._lock:
            self._limits, self._limits_until_s = found, self._clock() + _LIMITS_KEPT_S
        return found

    # --- files ---------------------------------------------------------------------------------

    def files(self, place: Place, folder: str = "", *, base: str = "") -> Iterator[DataFile]:
        """The files of a folder, without those of folders within it.

        Args:
            place: the space.
            folder: its path; empty: what is in no folder.
            base: only files of this name (``*`` and ``?`` stand for others).

        Raises:
            QlikError: there is no answer. A folder that is missing has no files.
        """
        query = {"limit": _PAGE, "excludeSubFolders": "true", **_of_place(place)}
        if folder:
            query["folderPath"] = folder
        if base:
            query["baseNameWildcard"] = base
        try:
            for row in self._api.pages(_FILES, query):
                if rows.text(row, "id") and row.get("folder") is not True:
                    yield _file(row)
        except StatusError as error:
            if not (folder and (error.status == 404 or "DF-005" in str(error))):
                raise

    def find(self, place: Place, name: str) -> DataFile | None:
        """The file of this name, with its folder.

        Raises:
            QlikError: there is no answer.
        """
        # Letter case counts: a name that only looks alike may be somebody else's file.
        folder, _, base = name.rpartition("/")
        return next((one for one in self.files(place, folder, base=base) if one.name == name), None)

    def put(
        self, place: Place, name: str, file: BinaryIO, size: int, *, known: DataFile | None
    ) -> DataFile:
        """Make a file, or replace the content of one.

        Args:
            place: the space.
            name: with its folder, which is made if it is missing.
            file: is read to its end, from where it stands.
            size: its bytes.
            known: the file of this name that is there, if there is one.

        Raises:
            QlikError: it may or may not be there; ``StatusError`` with 409: there is one of this
                name that ``known`` is not.
            OSError: the file can't be read.
        """
        limits = self.limits()
        where = f"{'PUT' if known else 'POST'} {self._api.transport.base_url}{_FILES}"
        if problem := limits.name_problem(name):
            raise QlikError(
                problem, where=where, label="refused", retry=RetryPolicy.NEVER, is_answered=True
            )
        if problem := limits.size_problem(size):
            # As the tenant would answer after all of it was sent.
            raise StatusError(problem, where=where, status=413, retry=RetryPolicy.NEVER)
        fields = {"name": name, **_of_place(place)}
        if known is not None and known.folder_id:
            # All of it again: what is left out would move the file.
            fields |= {"name": name.rpartition("/")[2], "folderId": known.folder_id}
        if limits.max_file and size > limits.max_file:
            base = name.rpartition("/")[2]
            fields["tempContentFileId"] = temporary_contents.send(self._api, base, file, size)
            body = bodies.form(fields, None, 0)
        else:
            body = bodies.form(fields, file, size)
        if known is None:
            reply = self._api.send("POST", _FILES, body=body)
        else:
            reply = self._api.send("PUT", f"{_FILES}/{quote(known.id, safe='')}", body=body)
        expect_success(reply, denied=f"{NO_FILE_RIGHT}.")
        return _file(as_object(reply))

    def make_folder(self, place: Place, path: str) -> None:
        """Make a folder and those above it; one that is there stays.

        Raises:
            QlikError: it can't be made.
        """
        fields = {"name": path, "folder": True, **_of_place(place)}
        reply = self._api.send("POST", _FILES, body=bodies.form(fields, None, 0))
        if reply.status != _TAKEN:
            expect_success(reply, denied=f"{NO_FILE_RIGHT}.")

    def delete(self, file_id: str) -> None:
        """Delete a file, or a folder and all that is in it; what is gone is no error.

        Raises:
            QlikError: it can't be deleted.
        """
        reply = self._api.send("DELETE", f"{_FILES}/{quote(file_id, safe='')}")
        if reply.status != 404:
            expect_success(reply, denied=f"{NO_FILE_RIGHT}.")


def _of_place(place: Place) -> dict[str, str]:
    return {"connectionId": place.connection_id} if place.connection_id else {}


def _file(row: Mapping[str, object]) -> DataFile:
    name, folder = rows.text(row, "name"), rows.text(row, "folderPath")
    return DataFile(
        rows.text(row, "id"),
        f"{folder}/{name}" if folder and "/" not in name else name,
        rows.number(row, "size"),
        rows.text(row, "folderId"),
        rows.time_ns(row.get("contentUpdatedDate") or row.get("modifiedDate")),
    )


def _refused(text: str, reply: Reply) -> QlikError:
    return QlikError(
        text,
        where=reply.where,
        label="refused",
        retry=RetryPolicy.NEVER,
        is_denied=True,
        is_answered=True,
    )
