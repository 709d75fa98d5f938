"""Client libraries as they come, told nothing but where to call."""
