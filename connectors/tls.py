"""TLS towards servers: whom we trust, and who we are, as PEM files. Host names are verified."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors.errors import Poison

_OF_OUR_CERTIFICATE: Final = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE")
"""Words in the alerts by which a server refuses who we say we are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files for one kind of server.

    Args:
        settings: How the names of its settings begin, such as ``HOLOLINE_KAFKA``.
        ca: Authorities to trust; None: those of the operating system.
        certificate: Our own certificate and what leads to its authority; None: we show none.
        key: Its private key, unencrypted; None: it stands in the certificate's file.
    """

    settings: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Trusts `ca`, shows `certificate`, and takes TLS 1.2 or later from the right host only.

        Raises:
            Poison: A file cannot be read as what it should be; its setting is named.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise Poison(
                f"{self.settings}_CA", f"{self.ca} holds no certificates in PEM: {error}"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
            except (OSError, ValueError) as error:
                raise Poison(
                    f"{self.settings}_CERTIFICATE",
                    f"{self.certificate} and {self.settings}_KEY must be a certificate and its "
                    f"unencrypted private key in PEM: {error}",
                ) from error
        return context

    def distrust(self, error: ssl.SSLError) -> Poison | None:
        """Whose certificate `error` refuses, and what to do; None when it is about none."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return Poison(
                f"{self.settings}_CA",
                f"the server's certificate is not trusted ({error.verify_message}): name the file "
                "of the authority that signed it, and the server by a name that stands in it",
            )
        reason = getattr(error, "reason", None) or ""  # OpenSSL alone says one
        if "ALERT" in reason and any(word in reason for word in _OF_OUR_CERTIFICATE):
            return Poison(
                f"{self.settings}_CERTIFICATE",
                f"the server does not take our certificate ({reason}): name one, and its key in "
                f"{self.settings}_KEY, that an authority which the server trusts has signed",
            )
        return None


def _no_password() -> str:
    """An encrypted key is refused; OpenSSL would ask for its password at the terminal."""
    return ""
