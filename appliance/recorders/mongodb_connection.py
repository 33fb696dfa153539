"""A recorder's connection to MongoDB, and what its errors mean.

Every error comes out as a ``DatabaseFaultError`` without secrets. Not for: documents (mongodb.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pymongo
from bson.errors import InvalidDocument
from pymongo import errors
from pymongo.collection import Collection
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from appliance.config.files import database_password
from appliance.config.tables import RecorderConfig
from appliance.errors import ConfigError
from appliance.recorders.database_fault import Cause, DatabaseFaultError
from appliance.recorders.database_texts import Mask, shown_address
from appliance.recorders.database_waits import Retries, TimeLimits, Waits

Document = dict[str, Any]

_CAUSES: tuple[tuple[frozenset[int], Cause], ...] = (
    (frozenset({18, 11}), Cause.LOGIN),  # AuthenticationFailed, UserNotFound
    (frozenset({13, 31, 8000}), Cause.RIGHT),  # Unauthorized, RoleNotFound, Atlas's own refusal
    (frozenset({14031, 12501}), Cause.DISK_FULL),  # OutOfDiskSpace, quota
    (frozenset({50, 262, 24, 64, 112}), Cause.TIMEOUT),  # MaxTimeMS, ExceededTimeLimit, locks
    (
        # Host and network errors, elections, shutdown: other servers or a later moment will do.
        frozenset({6, 7, 89, 91, 133, 189, 202, 9001, 10058, 10107, 11600, 11602, 13435, 13436}),
        Cause.CONNECTION,
    ),
    (frozenset({26, 72, 73, 166}), Cause.TABLE),  # namespaces, options, views
)
"""Codes of MongoDB's ``error_codes.yml``."""


class MongoConnection:
    """One client at a time. For one thread."""

    def __init__(
        self,
        config: RecorderConfig,
        collection: str,
        *,
        limits: TimeLimits | None = None,
        waits: Waits | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Not connected yet.

        Raises:
            ConfigError, NoPermissionError: the address or the password's file is not right.
        """
        assert config.database is not None
        self._config = config
        self._database = config.database
        self._collection = collection
        self._limits = limits or TimeLimits()
        self._retries = Retries(waits, now)
        self.shown = shown_address(config.database.url)
        self._mask = Mask(config.database)
        self._client: pymongo.MongoClient[Document] | None = None
        if not config.database.url.lower().startswith("mongodb+srv:"):  # that one asks the network
            try:
                name = parse_uri(config.database.url)["database"]
            except (errors.PyMongoError, ValueError):
                name = None
            if not name:
                raise ConfigError(
                    f"The database address {self.shown} is not right. Write for example"
                    " mongodb://user@host/database; characters such as @, / and : in a user name"
                    " are written as %40, %2F and %3A."
                )

    @property
    def is_open(self) -> bool:
        return self._client is not None

    @contextlib.contextmanager
    def collection(self) -> Iterator[Collection[Document]]:
        """The collection; writes are acknowledged by most servers of the replica set.

        Raises:
            DatabaseFaultError: what was done is not known, except with ``Cause.ROW``.
        """
        if self._client is None:
            self._retries.check()
        try:
            yield self._open()[self._collection]
        except errors.BulkWriteError as error:  # for the one that knows the documents
            raise error from None
        except (errors.PyMongoError, OverflowError) as error:
            fault = self.fault_of(error)
            if fault.cause is not Cause.ROW:
                self.close()
                self._retries.failed(fault)
            raise fault from None
        self._retries.succeeded()

    def _open(self) -> Any:
        if self._client is None:
            password = database_password(self._config)
            self._mask = Mask(self._database, password)
            milliseconds = int(self._limits.answer_s * 1000)
            self._client = pymongo.MongoClient(
                self._database.url,
                password=None if password is None else password.reveal(),
                appname="qlik-mqtt-appliance",
                connectTimeoutMS=int(self._limits.connect_s * 1000),
                serverSelectionTimeoutMS=int(self._limits.connect_s * 1000),
                socketTimeoutMS=milliseconds,
                maxPoolSize=2,
                tz_aware=True,
            )
        return self._client.get_default_database(
            write_concern=WriteConcern("majority", wtimeout=int(self._limits.statement_s * 1000))
        )

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # it is given up, in whatever state it is
                client.close()

    def refused(self, fault: DatabaseFaultError) -> DatabaseFaultError:
        """Note a failure that came within an answer; returns it."""
        self.close()
        self._retries.failed(fault)
        return fault

    def fault_of(self, error: Exception) -> DatabaseFaultError:
        """The fault that an error of pymongo is."""
        code = getattr(error, "code", None)
        text = self._mask.apply(_text(error))
        cause = _cause(error, code)
        return DatabaseFaultError(cause, text if cause is Cause.ROW else f"{self.shown}: {text}")

    def masked(self, text: str) -> str:
        return self._mask.apply(text)


def cause_of_code(code: int) -> Cause | None:
    """What a code of the server means; ``None``: it is about one document, or not known."""
    return next((cause for codes, cause in _CAUSES if code in codes), None)


def _cause(error: Exception, code: object) -> Cause:
    if isinstance(error, InvalidDocument | errors.DocumentTooLarge | OverflowError):
        return Cause.ROW
    if isinstance(error, errors.InvalidURI | errors.InvalidName):
        return Cause.DATABASE
    if isinstance(code, int) and (found := cause_of_code(code)) is not None:
        return found
    if isinstance(error, errors.NetworkTimeout | errors.ExecutionTimeout | errors.WTimeoutError):
        return Cause.TIMEOUT
    if isinstance(error, errors.ConfigurationError) and "password" in str(error):
        return Cause.LOGIN
    if isinstance(error, errors.ConnectionFailure | errors.ConfigurationError):
        return Cause.CONNECTION
    return Cause.OTHER


def _text(error: Exception) -> str:
    """The text without what pymongo repeats: the topology, the server's whole answer."""
    details = getattr(error, "details", None)
    if isinstance(details, dict) and details.get("errmsg"):
        code = details.get("codeName") or details.get("code")
        return f"{details['errmsg']} ({code})" if code else str(details["errmsg"])
    text = str(error).split(", Timeout: ")[0].split(", full error: ")[0]
    return text.partition(" (configured timeouts")[0]
