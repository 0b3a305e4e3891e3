"""Random calls of all that is public, with arguments and files that do not fit.

    values      what fits, by the name of a parameter; what does not; and changes of what fits
    functions   every callable of `dir(refimpl)`, and methods of trained models
    files       readers and commands on damaged, foreign and hostile files
    verdicts    one call: answered, refused, or answered by an error that nobody wrote

A refusal is an exception that refimpl raises itself, in one line, or exit code 2 with one line. An
AttributeError, a message of NumPy's, a call of many seconds or of gigabytes is a fault. Every call
is determined by a seed and its number: `python -m fuzz --only 1234` repeats one.
"""
