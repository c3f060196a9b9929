"""`python -m curate`: the command line, for `torchrun -m curate`."""

from curate.cli.main import main

if __name__ == "__main__":
    main()
