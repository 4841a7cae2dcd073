"""Long measurements of a real network, which print figures and add them to a file of results.

    python -m devnet.trials.kills --rounds 1000      kill -9 at random points; nothing final may be lost
    python -m devnet.trials.primary --runs 100       the primary killed: time to the next block; one dead for good
    python -m devnet.trials.wide_area                100 ms between all validators, stalls, no view change

Each exits with 1 if what must hold does not. Runs accumulate: the file keeps every one.
"""
