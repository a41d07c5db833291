"""How a node is reached."""

from __future__ import annotations

from dataclasses import dataclass

# A raw 4K frame with depth has 41.5 MB; the node's own limit is what counts, see `Client.describe`.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True)
class Security:
    """TLS, and who you are: PEM of the authority that the node's certificate is checked against (`None` for the
    system's), PEM of your own certificate and key where the node asks for one, a bearer token.

    Without `tls` the token goes in plain text: for a node on the same machine.
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = None
    token: str | None = None
    tls: bool = True


def opened(grpc, address: str, security: Security | None):
    """A channel of `grpc` (or `grpc.aio`), and the metadata of every call."""
    if security is None:
        return grpc.insecure_channel(address, options=OPTIONS), []
    metadata = [("authorization", f"Bearer {security.token}")] if security.token else []
    if not security.tls:
        return grpc.insecure_channel(address, options=OPTIONS), metadata
    # Credentials are made by `grpc` itself for both.
    import grpc as plain

    credentials = plain.ssl_channel_credentials(
        security.root_certificates, security.private_key, security.certificate_chain
    )
    return grpc.secure_channel(address, credentials, options=OPTIONS), metadata
