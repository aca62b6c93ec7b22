"""Object storage as the destination: moto over real HTTP, obstore's own store in memory, fakes."""
