"""The benchmark: `make bench`. Nothing here is run by the tests."""
