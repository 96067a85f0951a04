"""``python -m bayesunmix`` is the command line."""

from bayesunmix.cli import main

if __name__ == "__main__":
    main(prog_name="bayesunmix")
