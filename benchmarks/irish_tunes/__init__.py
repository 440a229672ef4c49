"""The parts of `benchmarks/irish.py`: the tunes as text and as steps, the lab, the models, the check of the bars."""
