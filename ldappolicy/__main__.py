"""The command `ldappolicy`: see `ldappolicy.cli`."""

from ldappolicy.cli import main

if __name__ == "__main__":
    main()
