"""Runs a program as if somebody sat at a terminal, and prints what is shown there.

    terminal.py PROGRAM ARGUMENT…
"""

import os
import pty
import sys

sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
