"""Fuzzing of everything that reads what others wrote: `make fuzz`, and in small `pytest tests/fuzz`."""
