"""`python -m berth`: the `berth` command."""

import sys

from berth.cli import main

sys.exit(main())
