"""`python -m minidyn` is the command line."""

from minidyn.cli import main

main()
