"""The address of a database for SQLAlchemy and for people, and drivers' texts without secrets.

Not for: what is wrong with an address (config/database_url.py), connecting (sql_connection.py).
"""

from __future__ import annotations

from appliance.config.database_url import without_password
from appliance.config.tables import DatabaseConfig
from appliance.known_secrets import KnownSecrets, address_secrets
from appliance.log.sanitize import escape
from appliance.secret import Secret

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "mssql": "mssql+pyodbc",
    "oracle": "oracle+oracledb",
}
"""What stands for a kind of database without a driver. SQLAlchemy's own choice differs between its
versions."""
_LONGEST = 500


def with_driver(url: str) -> str:
    """``url`` with a driver, where it names none."""
    kind, separator, rest = url.partition("://")
    return f"{_DRIVERS.get(kind.lower(), kind.lower())}{separator}{rest}"


def shown_address(url: str) -> str:
    """The address for people: without a password, and without what stands behind ``?``."""
    return escape(without_password(url)[0].partition("?")[0])


class Mask:
    """Makes the text of a driver's error fit to be shown."""

    def __init__(self, config: DatabaseConfig, password: Secret | None = None) -> None:
        self._known = KnownSecrets(
            *address_secrets(config.url), *([password] if password is not None else ())
        )

    def apply(self, text: str) -> str:
        """``text`` on one line, not too long, without the secrets of this database."""
        shown = escape(" ".join(self._known.mask(text).split()))
        return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."
