"""The child's way in: `python -m curate.isolation CHANNEL LIFELINE`, started by `Sandbox` alone."""

import sys

from curate.isolation.child import main

main(int(sys.argv[1]), int(sys.argv[2]))
