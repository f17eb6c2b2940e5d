"""The audit trail (PS3.15 A.5): events, messages, the file, and syslog over TLS."""
