"""uWSGI's configuration dialect: INI, YAML, JSON and XML files in, one list of settings out. Pure.

What a file asks of the machine (other files, the environment, the host's name) it asks of a :class:`World`.
The order is uWSGI's: magic variables while a file is read, then its logic blocks, with includes and ``set``
where they stand; then ``inherit``; then ``$(ENV)``, ``@(file)`` and ``%(placeholder)`` in all values.
Source: uWSGI 2.0, "Configuring uWSGI" and "Configuration logic"; docs/ini.md says what differs.
"""

from pyemperor.protocol.dialect.loader import load
from pyemperor.protocol.dialect.settings import Loaded, Setting, World

__all__ = ["Loaded", "Setting", "World", "load"]
