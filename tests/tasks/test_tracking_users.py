"""MLflow's own store of users, in a file: made, changed, and never with the password in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from deployments.auth import Credentials
from deployments.stack_users import user_settings, write_user_settings

LOOK = """
import sys
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
store = SqlAlchemyStore()
store.init_db(sys.argv[1])
print(*(int(store.authenticate_user("anna", word)) for word in sys.argv[2:]), int(store.get_user("anna").is_admin))
"""


def test_a_password_that_changed_in_the_file_is_changed_in_mlflow(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'users.db'}"
    write_user_settings(tmp_path, database)
    words = ("the-first-password", "the-second-password")
    for word in words:
        environment = os.environ | user_settings(tmp_path, Credentials("anna", word))
        subprocess.run([sys.executable, "-m", "tasks.tracking_users"], env=environment, check=True, capture_output=True)
    looked = subprocess.run(
        [sys.executable, "-c", LOOK, database, *words], env=environment, check=True, capture_output=True, text=True
    )
    assert looked.stdout.split() == ["0", "1", "1"]
    assert not any(word.encode() in (tmp_path / "users.db").read_bytes() for word in words)
