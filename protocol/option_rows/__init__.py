"""The rows of the table of options, by chapter; ``pyemperor.protocol.options`` joins them.

A chapter is a module that fits in one sitting. Who looks for one option asks ``pyemperor options NAME``.
"""
