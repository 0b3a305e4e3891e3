"""Programs killed at random moments, resumed, and held against runs that nobody interrupted.

    jobs        what is killed: training by the command `experiment`, and `python -m figures`
    training    that command, with a preset that trains in seconds
    chains      start, kill, look, start again, until a run ends by itself

Each kill goes to the process alone, not to its workers, by SIGKILL or SIGTERM in turn. After it
every process of the job must end and every file must be whole; after the last run the files must be
those of the reference, with the same numbers to the last bit. `make kills` runs 100 and 20.
"""
