"""From the network to the spool: acceptor, receivers, what they accept, and when they say 0x0000."""
