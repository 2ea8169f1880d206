"""PyEmperor: an actor-model supervisor that runs CGI programs behind nginx."""

__version__ = "0.1.0"
