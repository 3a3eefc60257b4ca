"""Run the commands from Python: one function a command, with plain arguments, that returns a value."""
