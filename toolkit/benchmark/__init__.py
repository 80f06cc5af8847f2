"""How fast the engine is on this machine, next to the ordinary way of asking a model."""
