"""Whether the node is well: checks with a state each, for ``/readyz``, ``m3node status`` and the page."""
