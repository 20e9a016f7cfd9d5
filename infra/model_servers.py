"""Model servers over HTTP: what their failures mean, the same for embedding and generation.

Ollama is spoken to through the ``ollama`` package, OpenAI-compatible endpoints through ``httpx``, on which the former
is built, so both fail alike.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import ollama
from pydantic import ValidationError

from infra.settings import Settings
from streams.errors import PermanentError, TransientError, Unavailable

OLLAMA_DEFAULT_URL = "http://127.0.0.1:11434"
CONNECT_TIMEOUT_S = 5.0
# No limit: how much is asked at once is limited where the questions are. A request that is cancelled while it is handed
# a connection leaves its place taken for ever (seen with httpcore 1.0.9), so that a limit of 100 would end in silence
# after as many cancelled questions. A place without a connection costs a few hundred bytes.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)


class ModelMissing(Unavailable):
    """The server lives but does not have the model; it may be pulled at any time."""

    def __init__(self, server: str, model: str, cure: str) -> None:
        super().__init__(server, f"it has no model '{model}'; {cure}", retry_after_s=30.0)


def ollama_client(url: str | None, *, timeout: httpx.Timeout) -> ollama.AsyncClient:
    return ollama.AsyncClient(host=url or OLLAMA_DEFAULT_URL, timeout=timeout, limits=LIMITS)


def openai_client(settings: Settings, *, timeout: httpx.Timeout) -> httpx.AsyncClient:
    """A client whose base is the endpoint's ``/v1``.

    Raises:
        Unavailable: no endpoint is set.
    """
    if not settings.openai_base_url:
        raise Unavailable("openai", "no endpoint is set; set LEAT_OPENAI_BASE_URL")
    key = settings.openai_api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    return httpx.AsyncClient(base_url=settings.openai_base_url, headers=headers, timeout=timeout, limits=LIMITS)


@contextmanager
def ollama_errors(model: str) -> Iterator[None]:
    """Translate whatever a call to Ollama raises.

    Raises:
        ModelMissing: 404; the message has the command that pulls the model.
        PermanentError: ``model-refused``, another 4xx: this request can never succeed.
        TransientError: it answered nonsense, broke off or failed inside.
        Unavailable: nobody there, its queue is full, or it did not answer in time.
    """
    try:
        with transport_errors("ollama"):
            yield
    except ollama.ResponseError as error:
        if error.status_code == httpx.codes.NOT_FOUND:
            raise ModelMissing("ollama", model, f"run: ollama pull {model}") from error
        raise _refusal("ollama", error.status_code, error.error) from error
    except ConnectionError as error:  # how the package reports httpx.ConnectError outside streams
        raise Unavailable("ollama", "no connection; is `ollama serve` running at LEAT_OLLAMA_URL?") from error


@contextmanager
def openai_errors(model: str) -> Iterator[None]:
    """Translate whatever a call to an OpenAI-compatible endpoint raises; as ``ollama_errors``."""
    try:
        with transport_errors("openai"):
            yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status == httpx.codes.NOT_FOUND:
            cure = "check LEAT_OPENAI_MODEL, LEAT_OPENAI_EMBED_MODEL and that LEAT_OPENAI_BASE_URL ends in /v1"
            raise ModelMissing("openai", model, cure) from error
        raise _refusal("openai", status, _message(error.response)) from error


@contextmanager
def transport_errors(server: str) -> Iterator[None]:
    """Translate what goes wrong between us and any server that speaks HTTP and JSON."""
    try:
        yield
    except (httpx.TimeoutException, TimeoutError) as error:
        raise Unavailable(server, "no answer in time") from error
    except httpx.ConnectError as error:
        raise Unavailable(server, "no connection") from error
    except httpx.TransportError as error:
        raise TransientError(f"{server} broke off: {type(error).__name__}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError, KeyError, TypeError, AttributeError) as error:
        raise TransientError(f"{server} answered something that is not its protocol") from error


def _refusal(server: str, status: int, message: str) -> Exception:
    """What an HTTP status means. -1: an error line within a stream, as when the process that runs the model dies."""
    detail = f"{server} says: {message[:300]}"
    if status in (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS):
        return Unavailable(server, message[:300])
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        # The key or the address is wrong, which is nobody's record: hold until someone has mended it.
        return Unavailable(server, f"it refuses us ({status}): {message[:300]}", retry_after_s=30.0)
    if 400 <= status < 500:
        return PermanentError("model-refused", detail)
    return TransientError(detail)


def _message(response: httpx.Response) -> str:
    """The error's text; empty for a streamed response whose body was not read."""
    try:
        error = response.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (httpx.ResponseNotRead, ValueError, KeyError, TypeError):
        return f"status {response.status_code}"
