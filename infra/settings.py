"""Every setting, read once in a composition root and passed down as values.

``LEAT_…`` environment variables, then a ``.env`` in the working directory, then the defaults below. The
descriptions are
the source of ``docs/configuration.md``.
"""

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

EmbedderName = Literal["minilm", "minilm-int8", "hash", "ollama", "openai"]
GeneratorName = Literal["extractive", "ollama", "openai"]


def _also(name: str, *fallbacks: str) -> AliasChoices:
    """Our own variable first, then names that people bring along from other systems."""
    return AliasChoices(f"LEAT_{name}".lower(), *(fallback.lower() for fallback in fallbacks))


class Settings(BaseSettings):
    """The frozen tree of settings."""

    model_config = SettingsConfigDict(
        env_prefix="LEAT_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    mode: Literal["local", "production"] = Field(
        "local", description="`production` refuses development secrets and stand-ins."
    )
    data_dir: Path = Field(Path(".leat/data"), description="Everything that lasts on one machine.")
    tools_dir: Path = Field(
        Path(".leat/tools"), description="Where `leat up` keeps Kafka's jars, and Redis where none is installed."
    )
    tenant: str = Field("default", description="The tenant of the local watcher and of the command line.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Level of the JSON logs.")

    # The log
    kafka_bootstrap_servers: str | None = Field(
        None, description="Brokers, `host:port,…`. Unset: `leat up` starts Apache Kafka."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the brokers."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="With SASL."
    )
    kafka_sasl_username: str | None = Field(None, description="With SASL.")
    kafka_sasl_password: SecretStr | None = Field(None, description="With SASL.")
    kafka_ssl_cafile: Path | None = Field(None, description="CA bundle of the brokers.")
    kafka_session_timeout_ms: int = Field(10_000, description="A consumer silent for this long loses its partitions.")
    kafka_max_poll_interval_ms: int = Field(
        300_000, description="A consumer that does not poll for this long loses its partitions."
    )
    instance_id: str | None = Field(
        None, description="Stable name of this process's slot, so that a restart takes its partitions back at once."
    )
    topic_prefix: str = Field("", description="Put before every topic and group name, with a dot.")
    partitions: int = Field(
        6, ge=1, le=1000, description="Partitions of `documents` and everything derived. Fixed once created."
    )
    replication_factor: int = Field(1, ge=1, description="Replicas per partition; 3 in production.")
    producers: Literal["open", "signed"] = Field("open", description="`signed`: document records need an HMAC header.")

    # Stores
    postgres_dsn: str | None = Field(None, description="PostgreSQL or TimescaleDB. Unset: `leat up` starts PostgreSQL.")
    postgres_pool_size: int = Field(8, ge=1, description="Connections per process.")
    redis_url: str | None = Field(
        None, validation_alias=_also("REDIS_URL", "REDIS_URL"), description="Redis 7+. Unset: `leat up` starts Redis."
    )
    qdrant_url: str | None = Field(None, description="A Qdrant server. Unset: the `index` process with Qdrant Edge.")
    qdrant_api_key: SecretStr | None = Field(None, description="Key of the Qdrant server.")
    index_socket: Path | None = Field(
        None, description="Unix socket of the `index` process. Unset: inside the data directory."
    )
    blob_dir: Path | None = Field(None, description="Folder of large contents. Unset: inside the data directory.")

    # Models
    embedder: EmbedderName = Field("minilm", description="Embedding model of new collections.")
    embed_threads: int = Field(0, ge=0, description="Threads of the bulk embedder; 0: one per core.")
    generator: GeneratorName = Field("extractive", description="Who writes answers; `extractive` quotes the documents.")
    ollama_url: str | None = Field(
        None,
        validation_alias=_also("OLLAMA_URL", "OLLAMA_LLM_URL", "OLLAMA_HOST"),
        description="Ollama for generation.",
    )
    ollama_embed_url: str | None = Field(
        None,
        validation_alias=_also("OLLAMA_EMBED_URL", "OLLAMA_EMBED_URL"),
        description="Ollama for embeddings. Unset: the same as for generation.",
    )
    ollama_model: str = Field(
        "llama3.1", validation_alias=_also("OLLAMA_MODEL", "OLLAMA_LLM_MODEL"), description="Generation model."
    )
    ollama_embed_model: str = Field("nomic-embed-text", description="Embedding model in Ollama.")
    ollama_num_ctx: int = Field(
        8192, ge=512, description="Tokens of prompt and answer that the generation model in Ollama holds."
    )
    ollama_keep_alive: str = Field(
        "30m", description="How long Ollama keeps a model in memory after a request: `30m`, `0`, `-1` for ever."
    )
    ollama_load_timeout_s: float = Field(
        300.0,
        gt=0,
        description="Longest wait until Ollama has a generation model in memory; no part of the time-outs below.",
    )
    openai_base_url: str | None = Field(
        None, description="An OpenAI-compatible endpoint (vLLM, LiteLLM), ending in /v1."
    )
    openai_api_key: SecretStr | None = Field(None, description="Its key.")
    openai_model: str = Field("", description="Generation model there.")
    openai_embed_model: str = Field("", description="Embedding model there.")

    # Documents
    chunk_tokens: int = Field(
        512, ge=32, description="Most tokens of a passage; the model's own limit if that is less."
    )
    chunk_overlap: int = Field(
        50, ge=0, description="Most tokens that a passage repeats of the one before, where a paragraph had to be cut."
    )
    max_document_bytes: int = Field(32 * 1024 * 1024, description="Larger documents are refused.")
    ingest_folders: str = Field(
        "",
        description="Folders, separated as in `PATH`, that `POST /api/v1/ingest/directory` may read. Empty: none.",
    )
    parse_memory_bytes: int = Field(
        512 * 1024 * 1024, description="Memory of the child process that parses binary formats."
    )
    parse_timeout_s: float = Field(30.0, description="Time it may take for one document.")

    # Serving
    host: str = Field("127.0.0.1", description="Address of the API.")
    port: int | None = Field(None, description="Port of the API. Unset: 8765 or the next free one.")
    api_token: SecretStr | None = Field(
        None, description="The administrator's token. Unset: made at start, in run.json."
    )
    api_url: str | None = Field(
        None, description="Where the command line finds a Leat that runs elsewhere. Unset: run.json says it."
    )
    metrics_port: int | None = Field(
        None, description="Where a consumer process serves Prometheus metrics; one each. The API has `/metrics` anyway."
    )
    max_searches: int = Field(64, ge=1, description="Searches at once per API process; more are refused with 503.")
    max_questions: int = Field(256, ge=1, description="Questions at once, until their answers have been handed over.")
    max_changes: int = Field(128, ge=1, description="Document changes at once over HTTP.")
    max_reads: int = Field(256, ge=1, description="Look-ups of documents, sources and states of questions at once.")
    breaker_pause_s: float = Field(
        30.0,
        gt=0,
        description="After five failures in a row, how long a model server is not asked; then with one probe.",
    )
    answer_timeout_s: float = Field(60.0, description="An answer that is not finished by then ends as failed.")
    first_token_timeout_s: float = Field(
        10.0, description="Longest wait for a loaded model's first token; more where large models run on a CPU."
    )
    token_timeout_s: float = Field(5.0, description="Longest pause of a model between two tokens.")
    answer_grace_s: float = Field(30.0, description="How long generation goes on after the last reader has left.")
    answer_cache_ttl_s: int = Field(
        300, ge=0, description="How long an answer may be given again while its documents stay as they are; 0: never."
    )
    guardrails_file: Path | None = Field(
        None, description="What questions and answers are checked for. Unset: the file that ships, which only reports."
    )
    answer_ttl_s: int = Field(3600, description="How long a finished stream can be resumed from Redis.")
    sse_heartbeat_s: float = Field(15.0, description="Pause after which a comment keeps an idle stream open.")
    sse_send_timeout_s: float = Field(10.0, description="A reader that takes nothing for this long is cut off.")
    max_streams: int = Field(
        1000, ge=1, description="Streams that one API process serves at once; more are told to come again (503)."
    )
    max_streams_per_user: int | None = Field(
        None,
        ge=0,
        description="Streams of one user per API process; more are refused (429). 0: no limit. Unset: 5 in production.",
    )


def load(**overrides: object) -> Settings:
    """Read the settings; ``overrides`` (from the command line) win over the environment."""
    return Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
