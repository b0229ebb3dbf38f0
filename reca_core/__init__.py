"""The method: Reconstruction Alignment for every model family. Knows neither Prefect nor MLflow."""
