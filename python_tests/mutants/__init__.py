"""Mutants: small mistakes made on purpose, each of which some test must notice.

``python -m python_tests.mutants`` makes them one by one, runs the tests that each of them names,
and reports who lives.
"""
