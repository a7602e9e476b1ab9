"""The command line and the environment of `mlflow server`, and the secrets in the environment.

Defaults of MLflow 3.17 that are changed here:

- It sends usage statistics, starts a pool of processes for jobs that judge language models, and serves a gateway to
  their providers. All three are off.
- It accepts Host headers that begin like a private address. Here it accepts localhost and 127.0.0.1 only.
- It sends webhooks to public https addresses only, and cannot read their secrets after a restart without a key. Here
  the key is stored, and webhooks may go to this machine over http: a user who may create a webhook can send requests
  to every server of this machine.
- MLFLOW_ variables set options that its command line leaves out. Only those for S3 are passed on.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from pathlib import Path

from cluster import object_store
from cluster.object_store import ObjectStore
from cluster.ports import LOOPBACK
from cluster.state_folder import secrets_of, write_private
from corrector.errors import UserError

ADMIN = "admin"
SECRETS_FILE = "secrets.json"
_USERS_FILE = "users.db"
# Seconds until a new webhook is called; with MLflow's default of 60 a webhook seems not to work.
WEBHOOK_CACHE_S = 1


def command(port: int, artifacts: str, *, auth: bool) -> list[str]:
    """The command that serves at `port`; `artifacts` is a URL or a folder."""
    options = {
        "host": LOOPBACK,
        "port": port,
        "workers": 1,
        "artifacts-destination": artifacts,
        "allowed-hosts": f"localhost,localhost:*,{LOOPBACK},{LOOPBACK}:*",  # any port: it may be forwarded
        "uvicorn-opts": "--no-access-log",
        **({"app-name": "basic-auth"} if auth else {}),
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-P", "-m", "mlflow", "server", "--serve-artifacts", *given]


def environment(state: Path, database: str, store: ObjectStore | None, *, auth: bool) -> dict[str, str]:
    """The command's whole environment; with `auth`, writes the configuration file that it names.

    Args:
        database: The database's URL; it may contain a password, so it is not on the command line.
        store: The object store for artifacts; None: the AWS variables of this process say where S3 is.
    """
    kept = _secrets(state)
    ours = {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": kept["webhook_key"],
        "MLFLOW_WEBHOOK_CACHE_TTL": str(WEBHOOK_CACHE_S),
        "PYTHONSAFEPATH": "1",
    }
    if auth:
        ours["MLFLOW_AUTH_CONFIG_PATH"] = str(_write_auth_configuration(state))
        ours["MLFLOW_AUTH_ADMIN_PASSWORD"] = kept["admin_password"]
        ours["MLFLOW_FLASK_SERVER_SECRET_KEY"] = kept["session_key"]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MLFLOW_") or name.startswith(("MLFLOW_S3_", "MLFLOW_BOTO_"))
    }
    if store is not None:
        inherited = {
            name: value for name, value in inherited.items() if name not in object_store.CONFLICTING_VARIABLES
        }
        inherited |= store.environment
    return inherited | ours


def admin_password(state: Path) -> str:
    """The password of ADMIN; created once."""
    return _secrets(state)["admin_password"]


def sqlite_file(state: Path) -> str:
    """The URL of the SQLite database in the state folder."""
    return f"sqlite:///{state / 'mlflow.db'}"


def without_password(database: str) -> str:
    """The URL of a database with *** for its password. Raises UserError if it is not a URL of a database."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(database).render_as_string(hide_password=True)
    except ArgumentError:
        raise UserError(
            "--backend-store-uri: not the URL of a database; write postgresql://USER:PASSWORD@HOST/DATABASE "
            "or sqlite:///FILE"
        ) from None


def _write_auth_configuration(state: Path) -> Path:
    path = state / "basic_auth.ini"
    users = str(state / _USERS_FILE).replace("%", "%%")
    lines = (
        "[mlflow]",
        "default_permission = READ",
        f"database_uri = sqlite:///{users}",
        f"admin_username = {ADMIN}",
    )
    write_private(path, "\n".join(lines) + "\n")
    return path


def _secrets(state: Path) -> dict[str, str]:
    """The admin's password, and the keys for sessions and for the webhooks' secrets."""
    return secrets_of(
        state,
        SECRETS_FILE,
        lambda: {
            "admin_password": secrets.token_hex(16),
            "session_key": secrets.token_hex(32),
            "webhook_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),  # as Fernet wants it
        },
    )
