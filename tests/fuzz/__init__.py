"""Arbitrary bytes against what reads them: targets for a fuzzer, and the seeds it starts from.

    python -m tests.fuzz server --seconds 600          (pip install -e '.[fuzz]', for atheris)
    python -m tests.fuzz server FILE...                what an input does, without atheris
    python -m tests.fuzz server --shrink FILE          the smallest input that fails in the same way

`test_fuzz.py` runs each target over its seeds and a few thousand mutations of them, without atheris.
"""
