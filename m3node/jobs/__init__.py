"""Strings the stages together: the answer to a manifest, the durable engine, the ledger, and the node's processes."""

import os

# The engine reads these when it is imported, and would follow them more than our settings.
for _name in [name for name in os.environ if name.startswith("DBOS__")]:
    del os.environ[_name]
