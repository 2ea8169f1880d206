"""Who does things: the actors, and the pure decisions below them."""
