"""The child's way in: `python -m curate.isolation CHANNEL LIFELINE FILE`, started by `Sandbox` alone."""

import sys

from curate.isolation.child import main

main(*map(int, sys.argv[1:4]))
