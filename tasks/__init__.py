"""The verbs: one Prefect task per step of the story."""
