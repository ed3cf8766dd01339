"""Leave-K-out: remove what a method found, train again, look again (paper, Sec. 3 and 5.1).

arms.py: a method with its options, and what it ranks; tasks.py: what one retraining is, and the
work list; bench.py: a worker's model, data and measures; pool.py: many workers, one thread each;
ledger.py: the lines on disk; curves.py, tables.py, verdicts.py, figures.py, strips.py: what the
lines say.
"""
