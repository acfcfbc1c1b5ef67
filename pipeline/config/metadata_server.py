"""The address of a metadata store on a server, as the configuration gives it."""

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

_PORTS: Final = {"postgresql": 5432, "mysql": 3306}
_OPTIONS: Final = {"postgresql": ("sslmode",), "mysql": ("ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "ssl_cipher")}
_SSL_MODES: Final = ("disable", "allow", "prefer")  # the modes of ML Metadata's PostgreSQL client, which is built without TLS
_QUOTE: Final = "write special characters of user and password as %XX (@ is %40, / is %2F, : is %3A)"


@dataclass(frozen=True)
class MetadataServer:
    """A database on a server; `str` gives its URL without the password.

    Attributes:
      system: "postgresql" or "mysql" (MariaDB, too).
      host: name or address.
      port: TCP port.
      user: name of the database's user.
      database: name of the database.
      options: options of the connection, such as {"sslmode": "disable"}.
      password: the URL's password, if it has one; no text made from this object contains it.
    """

    system: str
    host: str
    port: int
    user: str
    database: str
    options: dict[str, str] = field(default_factory=dict)
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        options = f"?{urlencode(self.options, safe='/')}" if self.options else ""
        return f"{self.system}://{quote(self.user, safe='')}@{host}:{self.port}/{quote(self.database, safe='')}{options}"


def parse_metadata_server(value: Any) -> MetadataServer:
    """Reads `postgresql://user:password@host:port/database?option=value`, or `mysql://...`; port and password are optional.

    Raises:
      ValueError: the URL can't be used. The message never contains the value, which may hold a password.
    """
    if isinstance(value, MetadataServer):
        return value
    if not isinstance(value, str) or "://" not in value:
        raise ValueError("must be postgresql://user@host:port/database or mysql://...; null: metadata.sqlite")
    system = value.partition("://")[0]
    if system not in _PORTS:
        raise ValueError(f"must begin with postgresql:// or mysql://, not {system}://; null: metadata.sqlite")
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError as error:  # its text may contain a part of the password
        raise ValueError(f"host or port can't be read; {_QUOTE}") from error
    database = unquote(url.path.removeprefix("/"))
    if "/" in url.path.removeprefix("/") or url.fragment:
        raise ValueError(f"has more than a database after the host; {_QUOTE}")
    for name, given in (("user", url.username), ("host", url.hostname), ("database", database)):
        if not given:
            raise ValueError(f"has no {name}; write {system}://user@host:port/database")
    assert url.username
    assert url.hostname
    return MetadataServer(
        system=system,
        host=url.hostname,
        port=port or _PORTS[system],
        user=unquote(url.username),
        database=database,
        options=_parse_options(system, url.query),
        password=unquote(url.password) if url.password else None,
    )


def _parse_options(system: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS[system]:
            raise ValueError(f"unknown option {name}; {system} takes {', '.join(_OPTIONS[system])}")
    if options.get("sslmode", "prefer") not in _SSL_MODES:
        raise ValueError(
            f"sslmode must be {', '.join(_SSL_MODES)}, for ML Metadata's PostgreSQL client has no TLS; use a tunnel (ssh -L)"
        )
    return options
