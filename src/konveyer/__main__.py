"""`python -m konveyer` is the `konveyer` command."""

from konveyer.cli.main import main

main()
