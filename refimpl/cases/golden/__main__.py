"""`python -m refimpl.cases.golden` draws the golden suite again and writes its files in place."""

from refimpl.cases.golden.generate import write_suite

if __name__ == "__main__":
    write_suite()
