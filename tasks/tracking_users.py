"""``python -m tasks.tracking_users``: the user of the environment has the password of the environment, in MLflow.

The environment is the MLflow server's (deployments/stack_users.py). MLflow itself only creates a user it does not know.
"""

from __future__ import annotations


def main() -> None:
    """Set the password of the administrator, or create that user."""
    from mlflow.server.auth.config import read_auth_config
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    settings = read_auth_config()
    user, password = settings.admin_username or "", settings.admin_password or ""
    store = SqlAlchemyStore()
    store.init_db(settings.database_uri)
    if store.has_user(user):
        store.update_user(user, password=password, is_admin=True)
    else:
        store.create_user(user, password, is_admin=True)


if __name__ == "__main__":
    main()
