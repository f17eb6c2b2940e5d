"""How results leave: the outbox and the C-STORE SCU."""
