"""Run `nst` as `python -m nst`."""

from nst.cli.app import main

if __name__ == "__main__":
    main()
