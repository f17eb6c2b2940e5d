"""``python -m m3node``."""

import sys

from m3node.cli import main

sys.exit(main())
