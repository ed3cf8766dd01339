"""Models taught a new word: are the exemplars found among distractors? (paper, Fig. 6 and 9).

plan.py: which models, pools and queries; methods.py: what is asked; bench.py: the models, made and
measured; view.py: the index as a customised model sees it; sitting.py: one answer after another;
costs.py: what is left to do; tables.py: what the lines say.
"""
