"""Private servers for the tests: started from nothing, on loopback, stopped by process id."""
