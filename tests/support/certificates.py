"""Certificates for TLS servers on loopback, made by an authority that exists for the length of a test run."""

import ssl


class Certificates:
    """An authority, the context of a server it vouches for, and contexts of clients that trust it, or another."""

    def __init__(self) -> None:
        # here, because it may not be installed
        import trustme

        self._authority = trustme.CA()

    @property
    def authority_pem(self) -> bytes:
        """The certificate of the authority."""
        return self._authority.cert_pem.bytes()

    def server(self, *names: str) -> ssl.SSLContext:
        """The context of a server on loopback, or of one with other names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names or ('localhost', '127.0.0.1', '::1')).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """The context of a client that trusts the server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        return context

    def stranger(self) -> ssl.SSLContext:
        """The context of a client that does not trust the server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        type(self._authority)().configure_trust(context)
        return context
