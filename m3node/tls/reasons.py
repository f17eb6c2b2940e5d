"""Why a TLS connection did not come about, in words that say what to do."""

from __future__ import annotations

import ssl

_OF_CERTIFICATES = {
    9: "its certificate is not valid yet (compare the clocks)",
    10: "its certificate has expired",
    18: "its certificate is signed by itself, and ca_file does not hold it",
    19: "its certificate's root authority is not in ca_file",
    20: "its certificate is signed by an authority that is not in ca_file",
    21: "its certificate is signed by an authority that is not in ca_file, and it did not send the one between",
    23: "its certificate is revoked",
    24: "one of its authorities is none",
    26: "its certificate is not for this use (extended key usage: TLS client for who calls, server for who is called)",
    62: "its certificate is of another name than that which was called",
    64: "its certificate does not hold the address that was called",
    66: "its certificate's key is too weak",
    67: "a key of its authorities is too weak",
    68: "its certificate is signed with a digest that is too weak",
}
"""By OpenSSL's codes (X509_V_ERR_…)."""

_OF_PROTOCOL = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
    "HTTP_REQUEST": "it speaks HTTP",
    "HTTPS_PROXY_REQUEST": "it speaks HTTP",
    "WRONG_VERSION_NUMBER": "what it sent is not TLS",
    "UNKNOWN_PROTOCOL": "what it sent is not TLS",
    "PACKET_LENGTH_TOO_LONG": "what it sent is not TLS",
    "RECORD_LAYER_FAILURE": "what it sent is not TLS",
    "BAD_RECORD_TYPE": "what it sent is not TLS",
    "UNEXPECTED_MESSAGE": "what it sent is not what TLS has at this place",
    "UNSUPPORTED_PROTOCOL": "it speaks no version of TLS that is allowed here",
    "VERSION_TOO_LOW": "it speaks no version of TLS that is allowed here",
    "NO_PROTOCOLS_AVAILABLE": "it speaks no version of TLS that is allowed here",
    "INAPPROPRIATE_FALLBACK": "it speaks an older version of TLS than it could",
    "NO_SHARED_CIPHER": "it knows none of the cipher suites that are allowed here",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "it knows no signature that the certificate here allows",
    "NO_SUITABLE_KEY_SHARE": "it knows no curve that is allowed here",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "what it sent was altered on the way",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it refuses our versions of TLS",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": "it refuses our cipher suites",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses: no suite or version in common, or it wants a certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it does not take our certificate (not for this use)",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired, it says",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our certificate is revoked, it says",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority that signed our certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "it denies us access",
    "TLSV1_ALERT_DECRYPT_ERROR": "it could not check what we signed",
    "TLSV1_UNRECOGNIZED_NAME": "it does not know the name that was called",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of ours (client_certificate_file)",
}
"""By OpenSSL's reasons."""


def why_no_tls(error: Exception) -> str:
    """Say why a handshake, or what came after it, failed; a clause about the peer: "it showed no certificate".

    Holds nothing that the peer sent.
    """
    if isinstance(error, TimeoutError):
        return "it did not finish the handshake in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _OF_CERTIFICATES.get(error.verify_code, f"its certificate does not hold: {error.verify_message}")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        return "it ended the connection during the handshake"
    if isinstance(error, ssl.SSLError):
        words = _OF_PROTOCOL.get(error.reason or "")
        return words or f"TLS failed ({(error.reason or 'no reason given').lower().replace('_', ' ')})"
    return f"the connection failed ({(error.strerror if isinstance(error, OSError) else None) or type(error).__name__})"
