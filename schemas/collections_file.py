"""A JSON file that describes collections, ours or one that people bring along: names in snake_case or camelCase."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schemas.administration import CollectionCreate

# Under these names other systems know models that we call by where they run.
_MODELS = {
    "all-minilm-l6-v2": "minilm",
    "sentence-transformers/all-minilm-l6-v2": "minilm",
    "nomic-embed-text": "ollama:nomic-embed-text",
    "mxbai-embed-large": "ollama:mxbai-embed-large",
}
_NAMES = {
    "model": "embedding_model",
    "chunk_size": "chunk_tokens",
    "overlap": "chunk_overlap",
    "access_level": "default_access_level",
    "allowed_groups": "default_allowed_groups",
    "path": "directory",
    "id": "name",
}


class DescribedCollection(BaseModel):
    """A collection of the file, and the folder that it is filled from."""

    model_config = ConfigDict(frozen=True)

    collection: CollectionCreate
    directory: str | None = None


def _snake(name: str) -> str:
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return _NAMES.get(name, name)


def _plain(given: Any) -> Any:
    """Our names for what the file calls otherwise."""
    if not isinstance(given, dict):
        return given
    plain = {_snake(str(name)): value for name, value in given.items()}
    if isinstance(model := plain.get("embedding_model"), str):
        plain["embedding_model"] = _MODELS.get(model.lower(), model)
    return plain


class CollectionsFile(BaseModel):
    """``defaults`` for all, and ``collections``: a list, or an object by name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    defaults: Annotated[dict[str, Any], BeforeValidator(_plain)] = Field(default_factory=dict)
    collections: list[dict[str, Any]] | dict[str, dict[str, Any]]

    def described(self) -> list[DescribedCollection]:
        """Every collection with the defaults filled in.

        Raises:
            ValueError: a collection has no name, or a field that cannot be.
        """
        given = self.collections
        items = [{**fields, "name": name} for name, fields in given.items()] if isinstance(given, dict) else given
        described = []
        for item in items:
            fields = {**self.defaults, **_plain(item)}
            directory = fields.pop("directory", None)
            known = {name: value for name, value in fields.items() if name in CollectionCreate.model_fields}
            described.append(
                DescribedCollection(collection=CollectionCreate.model_validate(known), directory=directory)
            )
        return described
