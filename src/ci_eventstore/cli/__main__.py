"""`python -m ci_eventstore.cli`."""

from ci_eventstore.cli import main

if __name__ == "__main__":
    main()
