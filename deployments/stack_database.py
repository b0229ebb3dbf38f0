"""The databases behind the two servers: sqlite files below the home, or two databases of one PostgreSQL server.

Two databases, not two schemas: both servers keep their migrations in a table called ``alembic_version``. Drivers are
spelled out, because what ``postgresql://`` alone means changed between SQLAlchemy versions
(docs/decisions/0002-pins.md). The password is in no address: both drivers read ``PGPASSWORD``, ``PGPASSFILE`` or
``~/.pgpass`` themselves, so it appears in no command line, no state file and no error message.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.home import Home

DATABASES = {"prefect": "reca_prefect", "mlflow": "reca_mlflow"}
"""Server -> name of its database."""
USERS = "reca_mlflow_users"
"""MLflow's users, where ``--auth`` is on: a third database for the same reason."""
MAINTENANCE = "postgres"
"""The database that every PostgreSQL server has, to connect to before ours exist."""
CONNECT_SECONDS = 10
EXAMPLE = "postgresql://reca@127.0.0.1:5432/"


def check_database(address: str) -> str:
    """The address if it is one. Raises BadInput for another scheme, a database name or a password in it."""
    if not address:
        return ""
    parts = urlsplit(address)
    if parts.scheme != "postgresql" or not parts.hostname or not parts.username:
        raise BadInput(f"{_shown(parts)} is no address of a PostgreSQL server", field="--database", remedy=EXAMPLE)
    if parts.password is not None:
        raise BadInput(
            "a password on the command line can be read by everyone on the machine",
            field="--database",
            remedy="leave it out, and set PGPASSWORD, or PGPASSFILE to a file with mode 0600",
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadInput(
            f"{_shown(parts)} names more than the server: the databases are {' and '.join(DATABASES.values())}",
            field="--database",
            remedy=EXAMPLE,
        )
    return address.rstrip("/") + "/"


def _shown(parts: SplitResult) -> str:
    return repr(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())


def prefect_database(address: str, home: Home) -> str:
    """What PREFECT_SERVER_DATABASE_CONNECTION_URL has to be."""
    if not address:
        return f"sqlite+aiosqlite:///{home.prefect / 'prefect.db'}"
    return _with_driver(address, "asyncpg") + DATABASES["prefect"]


def mlflow_database(address: str, home: Home) -> str:
    """What MLFLOW_BACKEND_STORE_URI has to be."""
    if not address:
        return f"sqlite:///{home.mlflow / 'mlflow.db'}"
    return _with_driver(address, "psycopg2") + DATABASES["mlflow"]


def users_database(address: str, home: Home) -> str:
    """Where MLflow keeps its users."""
    if not address:
        return f"sqlite:///{home.mlflow / 'users.db'}"
    return _with_driver(address, "psycopg2") + USERS


def _with_driver(address: str, driver: str) -> str:
    return address.replace("postgresql://", f"postgresql+{driver}://", 1)


def ensure_databases(address: str, *, users: bool = False) -> list[str]:
    """Create the databases that are not there; returns their names.

    Args:
        users: also the one of MLflow's users.

    Raises PrerequisiteMissing where the driver or the server is missing, or the user may not.
    """
    if not address:
        return []
    try:
        import psycopg2
    except ModuleNotFoundError as error:
        raise PrerequisiteMissing(
            "psycopg2 is not installed", field="--database", remedy="pip install 'reca-pipeline[postgres]'"
        ) from error
    parts = urlsplit(address)
    wanted = {*DATABASES.values(), *([USERS] if users else [])}
    try:
        connection = psycopg2.connect(
            host=parts.hostname,
            port=parts.port,
            user=parts.username,
            dbname=MAINTENANCE,
            connect_timeout=CONNECT_SECONDS,
        )
        try:
            connection.autocommit = True  # CREATE DATABASE runs in no transaction
            with connection.cursor() as cursor:
                cursor.execute("SELECT datname FROM pg_database")
                missing = sorted(wanted - {name for (name,) in cursor.fetchall()})
                for name in missing:
                    cursor.execute(f"CREATE DATABASE {name}")
        finally:
            connection.close()
    except psycopg2.Error as error:
        raise PrerequisiteMissing(
            f"PostgreSQL at {parts.hostname}:{parts.port} says: {str(error).strip()}",
            field="--database",
            remedy="check address, PGPASSWORD or PGPASSFILE, and that the user may create databases",
        ) from error
    return missing
