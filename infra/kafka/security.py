"""The same connection settings, as FastStream wants them."""

from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from infra.kafka.connection import connection_kwargs
from infra.settings import Settings

_SASL = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}


def faststream_security(settings: Settings) -> BaseSecurity | None:
    """None for an open listener. Raises as ``connection_kwargs`` does."""
    kwargs = connection_kwargs(settings)
    protocol = kwargs["security_protocol"]
    use_ssl = protocol.endswith("SSL")
    if protocol.startswith("SASL"):
        return _SASL[kwargs["sasl_mechanism"]](
            username=kwargs["sasl_plain_username"] or "",
            password=kwargs["sasl_plain_password"] or "",
            ssl_context=kwargs.get("ssl_context"),
            use_ssl=use_ssl,
        )
    return BaseSecurity(ssl_context=kwargs["ssl_context"], use_ssl=True) if use_ssl else None
