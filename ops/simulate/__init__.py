"""The real log server, dispatcher, admission and log against simulated workers, in virtual time."""
