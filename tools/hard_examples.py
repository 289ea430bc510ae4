#!/usr/bin/env python
"""The same as ``ohem-d2 report``."""

import sys

from ohem_d2.cli import report

if __name__ == "__main__":
    report(sys.argv[1:])
