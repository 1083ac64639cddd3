"""The pydantic tree of params.yaml; knows no torch."""
