"""``python -m ltlib.cli``, which torchrun starts on several machines."""

from ltlib.cli import main

if __name__ == "__main__":
    main()
