"""The guardrails of an installation, from one TOML file."""

import tomllib
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import re2  # type: ignore[import-untyped]
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streams.errors import PermanentError
from streams.guardrails import (
    Finder,
    Guardrail,
    Guardrails,
    Mode,
    Place,
    Span,
    fingerprint_of,
    injection_marks,
    length_over,
)
from streams.personal_data import personal_data

GUARDRAILS = Counter("leat_guardrails_total", "Answers that triggered a guardrail, by name.", ["name"])


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    mode: Mode
    places: frozenset[Place]


class LengthEntry(_Base):
    kind: Literal["length"]
    max_chars: int = Field(ge=1)

    def finder(self) -> Finder:
        return length_over(self.max_chars)


class PatternsEntry(_Base):
    kind: Literal["patterns"]
    patterns: tuple[str, ...]

    def finder(self) -> Finder:
        return _any_of([_compiled(self.name, pattern) for pattern in self.patterns])


class PersonalDataEntry(_Base):
    kind: Literal["personal-data"]

    def finder(self) -> Finder:
        return personal_data


class InjectionEntry(_Base):
    kind: Literal["injection"]

    def finder(self) -> Finder:
        return injection_marks


Entry = Annotated[LengthEntry | PatternsEntry | PersonalDataEntry | InjectionEntry, Field(discriminator="kind")]


class GuardrailsFile(BaseModel):
    """The file as it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    guardrail: tuple[Entry, ...] = ()


def load_guardrails(path: Path | None) -> Guardrails:
    """Read the file; None is the one that ships.

    Raises:
        PermanentError: ``guardrails-unreadable``: the file is missing or wrong; the message says where.
    """
    try:
        text = (path or files("infra").joinpath("guardrails.toml")).read_text(encoding="utf-8")
        entries = GuardrailsFile.model_validate(tomllib.loads(text)).guardrail
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise PermanentError("guardrails-unreadable", f"{path or 'guardrails.toml'}: {error}") from error
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise PermanentError("guardrails-unreadable", f"{path}: a name stands there twice")
    return Guardrails(
        tuple(Guardrail(entry.name, entry.mode, entry.places, entry.finder()) for entry in entries),
        fingerprint_of(text),
    )


Search = Callable[[str], list[Span]]


def _compiled(name: str, pattern: str) -> Search:
    """RE2 matches in time linear in the text, whatever the pattern: nobody can stop a worker with a question."""
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise PermanentError("guardrails-unreadable", f"'{name}': RE2 does not know {pattern!r}: {error}") from error
    return lambda text: [match.span() for match in compiled.finditer(text)]


def _any_of(searches: Sequence[Search]) -> Finder:
    return lambda text: [span for search in searches for span in search(text)]
