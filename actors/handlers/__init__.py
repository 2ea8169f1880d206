"""What a worker does with a request, one module per ``modifier1``."""
