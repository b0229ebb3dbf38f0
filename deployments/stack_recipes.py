"""Every recipe as a deployment of its own: the form opens with the published run's settings, one click starts it.

They are copies of the flow's own deployment (prefect.yaml) with other parameters, so what it says about pool, tags
and limits holds for them. Import it only after ``environment.enter``: Prefect reads its settings at import.
"""

from __future__ import annotations

from prefect.client.orchestration import SyncPrefectClient

from deployments import recipes

DEPLOYMENT = "reca"
"""Name of the deployments in prefect.yaml, one per flow."""


def deploy_recipes(client: SyncPrefectClient) -> None:
    """Create or update them. Raises ObjectNotFound where prefect.yaml has not been deployed."""
    for name in recipes.RECIPES:
        original = client.read_deployment_by_name(f"{recipes.flow_of(name)}/{DEPLOYMENT}")
        client.create_deployment(
            flow_id=original.flow_id,
            name=name,
            description=recipes.card(name),
            parameters={key: config.model_dump(mode="json") for key, config in recipes.find(name).items()},
            entrypoint=original.entrypoint,
            work_pool_name=original.work_pool_name,
            work_queue_name=original.work_queue_name,
            job_variables=original.job_variables,
            tags=original.tags,
            parameter_openapi_schema=original.parameter_openapi_schema,
            enforce_parameter_schema=True,
        )
