"""`python -m soldier_data` is `soldier-data`."""

from soldier_data.cli import main

main()
