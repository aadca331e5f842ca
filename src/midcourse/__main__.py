"""Makes ``python -m midcourse`` the command."""

from midcourse.cli import main

if __name__ == "__main__":
    main()
