"""Entry point of `python -m soldier_data`, the same command as `soldier-data`."""

from soldier_data.cli import main

main()
