"""TLS for all connections: certificates and how they are renewed, and contexts by the profile of PS3.15 B.12."""
